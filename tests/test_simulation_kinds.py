"""Kinds of galaxies, real ones among them, and what can be wrong with pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import from_mapping, to_mapping
from astroml_plugin.simulation import (
    PRESETS,
    Camera,
    Composite,
    Irregular,
    Population,
    RealGalaxies,
    Sky,
    StampSet,
    hst,
    preset,
    profiles,
)
from astroml_plugin.simulation.kinds import Draw
from astroml_plugin.simulation.population import draw_population
from astroml_plugin.sky.wcs import Box

galsim = pytest.importorskip("galsim", reason="needs the extra sim")

PSF = profiles.Psf("moffat", 0.7, 0.03, -0.02)


def _ours(profile: profiles.Profile, matrix: profiles.Matrix, size: int = 64) -> np.ndarray:
    grid = profiles.grid_for(PSF, size, 0.2)
    transform = profile.transform(matrix, grid) * profiles.psf_transform(PSF, size, 0.2)
    return profiles.to_image(transform, grid, 0.31, -0.22)


def _theirs(galaxy: object, size: int = 64) -> np.ndarray:
    psf = galsim.Moffat(beta=3, fwhm=0.7).shear(g1=0.03, g2=-0.02)
    image = galsim.Convolve(galaxy, psf).drawImage(nx=size, ny=size, scale=0.2, offset=(0.5 + 0.31, 0.5 - 0.22))
    return image.array


def test_knots_agree_with_galsim() -> None:
    x, y, weight = (0.3, -0.5, 0.1), (0.2, 0.4, -0.6), (0.5, 0.3, 0.2)
    points = [galsim.DeltaFunction(w).shift(a, b) for a, b, w in zip(x, y, weight, strict=True)]
    theirs = _theirs(galsim.Add(points).rotate(90 * galsim.degrees).shear(g1=0.2, g2=0.1))
    ours = _ours(profiles.Knots(x, y, weight), profiles.ellipse(0.2, 0.1).after(profiles.rotation(np.pi / 2)))
    assert np.abs(ours - theirs).max() < 1e-3 * theirs.max()


def test_real_galaxies_agree_with_galsim(shared_data: Path) -> None:
    """Deconvolution, rotation and shear as `galsim.RealGalaxy` does them, within 1e-3 of the peak."""
    folder = shared_data / "cosmos_real26"
    catalog = hst.HstGalaxies.open(str(folder))
    theirs = galsim.RealGalaxyCatalog(Path(catalog.path).name, dir=str(folder))
    matrix = profiles.ellipse(0.1, -0.05).after(profiles.rotation(0.7))
    for index in (3, 40, 77):
        galaxy = galsim.RealGalaxy(theirs, index=index, flux=1.0).rotate(0.7 * galsim.radians).shear(g1=0.1, g2=-0.05)
        expected = _theirs(galaxy)
        assert np.abs(_ours(hst.Picture(catalog.path, index), matrix) - expected).max() < 1e-3 * expected.max()
    theirs.close()


def test_held_out_galaxies_are_never_trained_on(shared_data: Path) -> None:
    catalog = hst.HstGalaxies.open(str(shared_data / "cosmos_real26"))
    train, test = catalog.part("train", 1), catalog.part("test", 1)
    assert (len(train), len(test)) == (60, 40)
    assert not set(train) & set(test)
    assert set(train) | set(test) == set(catalog.part("all", 1))
    assert set(catalog.part("test", 2)) != set(test)
    with pytest.raises(InputError, match="train, test or all"):
        catalog.part("validation", 1)


def test_structures_of_real_galaxies(shared_data: Path) -> None:
    """The bright ones as they look: 40 is a smooth spheroid, 36 has clumps, 27 and 5 are disks; no part shares one."""
    catalog = hst.HstGalaxies.open(str(shared_data / "cosmos_real26"))
    found = {name: set(catalog.of_structure(name, "all", 1).tolist()) for name in hst.STRUCTURES}
    assert (40 in found["early"], 36 in found["irregular"], 27 in found["late"]) == (True, True, True)
    assert sum(map(len, found.values())) == len(set().union(*found.values())) == 42
    for name in hst.STRUCTURES:
        parts = [set(catalog.of_structure(name, part, 1).tolist()) for part in ("train", "test")]
        assert not parts[0] & parts[1]
        assert parts[0] | parts[1] == found[name]
    with pytest.raises(InputError, match="a structure is one of early, late, irregular, not 'spiral'"):
        RealGalaxies("x", structure="spiral")


def test_real_galaxies_are_taken_in_turn(shared_data: Path) -> None:
    path = str(shared_data / "cosmos_real26")
    stamps = replace(preset("hst-test", path), count=81, block=81)
    block = stamps.make(0)
    assert np.isfinite(block.image).all()
    assert np.isnan(block.table["e1"].to_numpy()).all()
    assert set(block.table["class"].to_pylist()) == {"real"}
    radius = block.table["half_light_radius"].to_numpy()
    assert np.array_equal(radius[:40], radius[40:80])  # the same galaxies, 30 degrees on
    kind, places = stamps.population.kinds[0], np.zeros(1)
    rng = np.random.default_rng(0)
    first, second, third = (kind.make(Draw(n, 0.5, 0, 0, places), rng).parts[0] for n in (0, 40, 80))
    assert first.profile == second.profile == third.profile
    assert second.matrix == profiles.rotation(np.radians(30))
    assert third.matrix == pytest.approx(profiles.rotation(np.radians(60)))


def test_resized_real_galaxies_have_the_sizes_of_the_population(shared_data: Path) -> None:
    path = str(shared_data / "cosmos_real26")
    kind, places = RealGalaxies(path, part="test", rotations=12, resized=True), np.zeros(1)
    plain = replace(kind, resized=False)
    rng = np.random.default_rng(0)
    for number, radius in enumerate((0.3, 0.5, 1.0) * 4):
        own, seen = (one.make(Draw(number, radius, 0, 0, places), rng) for one in (kind, plain))
        assert own.half_light_radius == pytest.approx(min(radius, 3 * seen.half_light_radius))
        assert own.parts[0].matrix.stretch() == pytest.approx(own.half_light_radius / seen.half_light_radius)
    block = replace(preset("hst-test-resized", path), count=40, block=40).make(0)
    assert np.isfinite(block.image).all()
    observed = replace(preset("hst-test", path), count=40, block=40).make(0).table
    assert np.median(block.table["half_light_radius"]) > 1.5 * np.median(observed["half_light_radius"])


def test_a_folder_without_a_catalog_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no RealGalaxyCatalog"):
        hst.HstGalaxies.open(str(tmp_path))
    (tmp_path / "catalog.fits").write_text("no table")
    with pytest.raises(InputError, match="cannot be read"):
        hst.HstGalaxies.open(str(tmp_path))
    with pytest.raises(InputError, match="nowhere cannot be read"):
        preset("hst-test", str(tmp_path / "nowhere"))


def test_true_ellipticity_only_where_all_parts_share_one_shear() -> None:
    population = Population(star_fraction=0.1, bulge_probability=0.5, kinds=(Irregular(0.3), Composite(0.2)))
    objects = draw_population(np.random.default_rng(3), 4000, population, Camera())
    names = np.array(["star", "spheroid", "disk", "irregular", "real"])[objects.kind]
    assert (names == "irregular").mean() == pytest.approx(0.27, abs=0.03)
    assert np.isnan(objects.e1[(names == "irregular") | (names == "star")]).all()
    for i in np.flatnonzero(np.isfinite(objects.e1)):
        e = [(p.matrix.xy / (p.matrix.xx + p.matrix.yy), p.matrix.xx / p.matrix.yy) for p in objects.parts[i]]
        assert e[0] == pytest.approx(e[-1])  # a disk's bulge has its ellipticity
    assert np.isnan(objects.e1[[len({p.matrix.xx / p.matrix.yy for p in parts}) > 2 for parts in objects.parts]]).all()
    for parts in objects.parts[:200]:
        assert sum(part.share for part in parts) == pytest.approx(np.ones(3))


def test_irregular_galaxies_are_bluer_in_their_knots() -> None:
    galaxy = Irregular().make(Draw(0, 0.5, 0.1, 0.0, Camera().band_positions()), np.random.default_rng(1))
    assert galaxy.parts[1].share[0] > galaxy.parts[1].share[2]


@pytest.mark.parametrize("correlation", [0.0, 0.2])
def test_noise_has_the_correlation_asked_for(correlation: float) -> None:
    camera = Camera(bands=("r",), gain=0.0, noise_correlation=correlation)
    faint = StampSet(64, block=64, camera=camera, snr=(1e-6, 1e-6))
    image = faint.make(0).image[:, 0] / 2.5
    assert image.std() == pytest.approx(1, abs=0.02)
    assert (image[:, :, 1:] * image[:, :, :-1]).mean() == pytest.approx(correlation, abs=0.02)
    assert (image[:, 1:] * image[:, :-1]).mean() == pytest.approx(correlation, abs=0.02)


def test_tilings_agree_with_correlated_noise() -> None:
    sky = Sky(300, 280, camera=Camera(bands=("r",), noise_correlation=0.3), density=5.0)
    whole, _ = sky.render(Box(0, 0, 280, 300))
    part, _ = sky.render(Box(100, 50, 270, 290))
    assert np.array_equal(part.image, whole.image[:, 50:290, 100:270], equal_nan=True)


def test_masked_pixels_have_no_variance() -> None:
    block = StampSet(64, block=64, masked=0.05).make(0)
    bad = block.variance == 0
    assert bad.mean() == pytest.approx(0.05, abs=0.02)
    clean = StampSet(64, block=64).make(0)
    assert np.array_equal(block.image[~bad], clean.image[~bad])
    assert (block.image[bad] != clean.image[bad]).all()


STAMPS = [name for name in PRESETS if not name.startswith("hst") and isinstance(preset(name), StampSet)]
"""Presets of ordinary stamps that need no real galaxies."""


@pytest.mark.parametrize("name", STAMPS)
def test_presets_make_stamps_and_survive_being_written(name: str) -> None:
    stamps = replace(preset(name), count=12, block=12)
    assert from_mapping(type(stamps), to_mapping(stamps), "here") == stamps
    block = stamps.make(0)
    assert np.isfinite(block.image).all()
    assert {"e1", "snr", "flux", "g1", "psf_e1", "class"} <= set(block.table.column_names)


def test_presets_of_the_field_table_stay_what_they_are() -> None:
    """Figures are quoted for them: other values need another name."""
    fixed, varying = preset("field-fixed"), preset("field-varying")
    population, camera = fixed.population, fixed.camera
    assert (population.sersic_n, population.half_light_radius) == ((0.5, 4.0), (0.3, 1.0))
    assert (population.ellipticity, population.ellipticity_scale, population.ellipticity_max) == (
        "exponential",
        0.1,
        0.8,
    )
    assert (camera.psf_profile, camera.psf_fwhm, camera.psf_ellipticity, camera.gain) == ("moffat", (0.7, 0.7), 0, 0)
    assert (fixed.snr, fixed.offset, fixed.size, fixed.neighbours) == ((10.0, 200.0), 0.5, 48, 0)
    assert varying == replace(fixed, camera=replace(camera, psf_fwhm=(0.55, 0.95), psf_ellipticity=0.05))
    table = replace(fixed, count=4, block=4).make(0).table
    assert set(table["class"].to_pylist()) <= {"spheroid", "disk"}


def test_wrong_populations_are_one_sentence() -> None:
    for wrong in (
        {"kinds": (Irregular(0.7), Composite(0.7))},
        {"sersic_n": (0.5, 9.0)},
        {"ellipticity": "uniform"},
    ):
        with pytest.raises(InputError):
            Population(**wrong)
    for make in (
        lambda: Irregular(2.0),
        lambda: Composite(kind="real"),
        lambda: RealGalaxies("x", rotations=-1),
        lambda: Irregular(knots=(0, 2)),
        lambda: Camera(noise_correlation=0.9),
        lambda: StampSet(1, masked=0.7),
        lambda: preset("nothing"),
        lambda: preset("hst-test"),
    ):
        with pytest.raises(InputError):
            make()
