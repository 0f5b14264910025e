"""Simulated lenses: physics against closed forms, one way of painting, nothing but the arcs tells."""

from dataclasses import replace

import numpy as np
import pytest

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import from_mapping, to_mapping
from astroml_plugin.simulation import LensSet, preset
from astroml_plugin.simulation.lenses import HARD, PAINTERS, LensCamera, bodies, easy_features, galaxies
from astroml_plugin.simulation.lenses.light import FINE, Source, positions, ring, spiral, tail
from astroml_plugin.simulation.lenses.painting import Canvas
from astroml_plugin.simulation.profiles import Psf, Sersic, ellipse
from astroml_plugin.sources.stamps import Stamps
from workflows.simulate import simulate

pytest.importorskip("galsim")
pytest.importorskip("lenstronomy")

SMALL = LensSet(24, seed=3, block=12)


@pytest.fixture(scope="module")
def many():
    """Half lenses, half plain deflectors without arcs."""
    shares = {name: float(name == "plain") for name in PAINTERS if name != "lens"}
    return LensSet(320, seed=11, block=320, **shares).make(0)


def test_a_block_is_the_same_alone_and_within_others() -> None:
    again, longer = SMALL.make(1), replace(SMALL, count=60).make(1)
    assert np.array_equal(again.image, longer.image)
    assert again.table.to_pandas().equals(longer.table.to_pandas())
    assert not np.array_equal(again.image, replace(SMALL, seed=4).make(1).image)
    assert again.table["object_id"].to_pylist() == list(range(12, 24))


def test_settings_survive_being_written() -> None:
    stamps = replace(preset("lenses"), count=12, seed=5)
    assert from_mapping(LensSet, to_mapping(stamps), "here") == stamps
    assert sum(stamps.shares[name] for name in HARD) >= 0.5


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 63},
        {"size": 32},
        {"plain": 0.5},
        {"theta_e": (2.0, 0.7)},
        {"source_mag": (25.0, 21.0)},
        {"lens_fraction": 1.2},
        {"count": 0},
    ],
)
def test_settings_that_cannot_be_are_refused(changes) -> None:
    with pytest.raises(InputError):
        replace(SMALL, **changes)


def test_only_g_r_i() -> None:
    with pytest.raises(InputError, match="g, r, i"):
        LensCamera(bands=("r",))  # type: ignore[arg-type]


def test_impossible_arcs_are_refused() -> None:
    with pytest.raises(InputError, match="ask for less"):
        LensSet(1, block=1, magnification=1e6).make(0)


def test_sky_noise_gives_the_depth() -> None:
    """A point source of the limiting magnitude has S/N 5 in an optimal Gaussian filter."""
    camera = LensCamera()
    sigma = camera.depth_fwhm / camera.pixel_scale / 2.3548
    y, x = np.mgrid[-20:21, -20:21]
    psf = np.exp(-(x**2 + y**2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    flux = 10 ** (0.4 * (camera.zero_point - np.array(camera.depth)))
    assert flux * np.sqrt((psf**2).sum()) / camera.sigma == pytest.approx(np.full(3, 5.0), rel=2e-3)


def test_an_isothermal_sphere_magnifies_as_it_should() -> None:
    """A small source inside the Einstein radius: total magnification 2 theta_e / beta."""
    rng = np.random.default_rng(1)
    drawn = galaxies.draw_deflector(rng, (1.2, 1.2))
    round_ = replace(drawn, mass_e1=0.0, mass_e2=1e-6, gamma1=0.0, gamma2=0.0)
    x, y = positions(0.2)
    source = Source(0.6, 0.0, 0.15, 1.0, 1.0, 0.0)
    plane = source.at(*bodies.source_plane(round_, x, y))
    assert plane.sum() * (0.2 / FINE) ** 2 == pytest.approx(2 * 1.2 / 0.6, rel=0.05)
    brightest = np.unravel_index(plane.argmax(), plane.shape)
    assert x[brightest] == pytest.approx(1.8, abs=0.1)
    assert y[brightest] == pytest.approx(0.0, abs=0.1)


def test_fine_light_and_profiles_meet_on_the_same_pixels() -> None:
    """An unlensed source painted on the fine grid is the analytic profile, place and flux alike."""
    psfs = [Psf("moffat", fwhm, 0.02, -0.01) for fwhm in (0.8, 0.7, 0.6)]
    canvas = Canvas(psfs, 64, 0.2, (0.3, -0.2))
    source = Source(0.7, -1.1, 0.4, 1.0, 1.0, 0.0)
    flux = np.array([50.0, 100.0, 200.0])
    fine = canvas.pixels(flux.astype(np.float32)[:, None, None] * canvas.sampled(source.at(*positions(0.2))))
    part = galaxies.Component(Sersic(1.0), ellipse(0, 0, 0.4), flux, 0.7, -1.1)
    analytic = canvas.pixels(canvas.analytic([part]))
    assert np.abs(fine - analytic).max() < 5e-3 * analytic.max()
    assert analytic.sum((1, 2)) == pytest.approx(flux, rel=0.02)


@pytest.mark.parametrize("shape", [spiral, ring, tail])
def test_shapes_have_unit_flux_at_their_radius(shape) -> None:
    x, y = positions(0.2)
    for seed in range(5):
        light = shape(x, y, np.random.default_rng(seed), 1.2)
        assert light.min() >= 0
        assert light.sum() * (0.2 / FINE) ** 2 == pytest.approx(1.0, rel=0.02)
        assert 0.3 < float((light * np.hypot(x, y)).sum() / light.sum()) < 3.5
        assert max(light[0].max(), light[:, 0].max()) < 0.02 * light.max()


def test_deflectors_are_early_types_with_colours_of_their_redshift() -> None:
    rng = np.random.default_rng(2)
    drawn = [galaxies.draw_deflector(rng, (0.7, 2.0)) for _ in range(400)]
    g, r, i = np.array([one.mag for one in drawn]).T
    z, sigma = np.array([one.redshift for one in drawn]), np.array([one.velocity_dispersion for one in drawn])
    assert np.corrcoef(z, g - r)[0, 1] > 0.7
    assert 180 < np.median(sigma) < 330
    assert 17.5 < np.median(r) < 21.5
    assert (g - i > 1.2).all()
    one = drawn[0]
    ratio = 1 - galaxies.comoving_distance(one.redshift) / galaxies.comoving_distance(one.source_redshift)
    theta = 4 * np.pi * (one.velocity_dispersion / 299_792.458) ** 2 * ratio * 206_265
    assert theta == pytest.approx(one.theta_e, rel=1e-3)


def test_accepted_lenses_are_bright_and_magnified(many) -> None:
    table = many.table.to_pandas()
    lenses = table[table["class"] == "lens"]
    assert 110 < len(lenses) < 210
    assert (lenses["arc_snr"] >= 20).all()
    assert (lenses["arc_pixels"] >= 20).all()
    assert (lenses["magnification"] > 1.6).all()
    assert lenses["theta_e"].between(0.7, 2.0).all()
    assert lenses["source_mag"].between(21.5, 25.0).all()
    others = table[table["class"] == "other"]
    assert others[["theta_e", "source_mag", "magnification", "arc_snr"]].isna().all().all()


def test_nothing_but_the_arcs_tells(many) -> None:
    """Noise, surroundings, PSFs and deflectors of lenses and plain deflectors are drawn alike."""
    lens = np.array(many.table["class"].to_pylist()) == "lens"
    corner = many.image[:, :, :6, :6]
    values = {name: many.table[name].to_numpy() for name in ("deflector_mag_r", "deflector_radius", "psf_fwhm_r")}
    values |= {"offset": many.table["offset_x"].to_numpy(), "redshift": many.table["deflector_redshift"].to_numpy()}
    values |= {"noise": np.diff(corner, axis=3).std((1, 2, 3)), "corner": np.median(corner, axis=(1, 2, 3))}
    for value in values.values():
        assert _ks(value[lens], value[~lens]) < 1.63 * np.sqrt(1 / lens.sum() + 1 / (~lens).sum())  # 1 %
    colour = easy_features(many.image, 0.2)[:, 1]
    assert _ks(colour[lens], colour[~lens]) > 0.3  # the arcs are blue


def _ks(a: np.ndarray, b: np.ndarray) -> float:
    """Largest distance of two cumulative distributions."""
    both = np.sort(np.concatenate([a, b]))
    first, second = (np.searchsorted(np.sort(one), both, side="right") / len(one) for one in (a, b))
    return float(np.abs(first - second).max())


def test_every_kind_is_painted_on_the_same_deflectors() -> None:
    """With another kind, a stamp keeps deflector, PSF, surroundings and noise; far from the centre nothing changes."""
    made = {}
    for kind in ("plain", "unlensed", "spiral", "ring"):
        shares = {name: float(name == kind) for name in PAINTERS if name != "lens"}
        made[kind] = replace(SMALL, count=6, block=6, lens_fraction=0.0, galaxies=0.0, **shares).make(0)
        assert made[kind].table["kind"].to_pylist() == [kind] * 6
    for kind in ("unlensed", "spiral", "ring"):
        assert made[kind].table["deflector_mag_r"].equals(made["plain"].table["deflector_mag_r"])
        added = made[kind].image - made["plain"].image
        assert np.abs(added[:, :, :3, :3]).max() < 2.0
        assert added.sum((1, 2, 3)).min() > 0 or kind == "spiral"


def test_simulate_writes_stamps_with_truth(tmp_path) -> None:
    made = simulate(out=str(tmp_path), preset="lenses", count=20, block=10, changes={"stamps": {"variance": False}})
    stamps = Stamps.open(made.source)
    assert (stamps.count, stamps.size, stamps.bands) == (20, (64, 64), ("g", "r", "i"))
    assert not stamps.has_variance
    assert {"class", "kind", "hard", "theta_e", "arc_snr", "magnification", "source_mag"} <= set(stamps.columns)
    image = stamps.read_block(1)[0]
    assert np.array_equal(image, LensSet(20, block=10, variance=False).make(1).image)


@pytest.mark.parametrize("given", [{"pairs": "shear"}, {"changes": {"population": {"slope": 0.1}}}, {"kind": "survey"}])
def test_what_lenses_cannot_do_is_refused(tmp_path, given) -> None:
    with pytest.raises(InputError):
        simulate(out=str(tmp_path), preset="lenses", count=4, **given)
