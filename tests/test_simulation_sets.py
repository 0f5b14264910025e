"""Sets of stamps for biases: what is the same between branches is the same, what differs is as said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import from_mapping, to_mapping
from astroml_plugin.simulation import Population, PsfPairs, ShearSets, StampSet, make_design, preset
from astroml_plugin.simulation.objects import sheared_ellipticity

pytest.importorskip("galsim", reason="needs the extra sim")

SETS = replace(preset("field-fixed"), count=6, block=6, design=ShearSets(0.05))


def _images(stamps: StampSet) -> np.ndarray:
    """(set, branch, y, x)"""
    image = stamps.make(0).image
    return image.reshape(-1, stamps.design.size, *image.shape[-2:])


def _quiet(stamps: StampSet) -> StampSet:
    """The same galaxies, hardly any noise."""
    camera = replace(stamps.camera, sky_sigma=1e-4)
    return replace(stamps, camera=camera, snr=None, population=replace(stamps.population, magnitude=(20.0, 20.0)))


def test_a_set_has_its_branches_and_truth() -> None:
    table = SETS.make(0).table.to_pydict()
    assert table["object_id"] == list(range(24))
    assert table["set_id"] == list(np.repeat(np.arange(6), 4))
    assert table["branch"][:8] == ["+g1/0", "-g1/0", "+g1/90", "-g1/90", "+g2/0", "-g2/0", "+g2/90", "-g2/90"]
    assert table["g1"][:8] == [0.05, -0.05, 0.05, -0.05, 0, 0, 0, 0]
    assert table["g2"][4:8] == [0.05, -0.05, 0.05, -0.05]
    single = replace(SETS, design=make_design(None)).make(0).table.to_pydict()
    for column in ("sersic_n", "half_light_radius", "psf_fwhm"):
        assert table[column][::4] == single[column]
    e1, e2 = (np.array(single[name]) for name in ("e1", "e2"))
    for row, sign in ((0, 1), (1, 1), (2, -1), (3, -1)):
        g1, g2 = (np.array(table[name][row::4]) for name in ("g1", "g2"))
        expected = sheared_ellipticity(sign * e1, sign * e2, g1, g2)
        assert np.allclose([table["e1"][row::4], table["e2"][row::4]], expected)


def test_noise_is_the_same_for_both_signs_and_turned_for_the_partner() -> None:
    """Images of sets differ by their noiseless models only."""
    quiet = _quiet(SETS)
    noise = _images(replace(quiet, camera=SETS.camera)) - _images(quiet)
    assert np.abs(noise[:, 0] - noise[:, 1]).max() < 0.01
    turned = np.rot90(noise[:, 0], -1, axes=(1, 2))  # around 23.5, one column beside the turn around pixel 24
    assert np.abs(noise[:, 2][:, :, 1:] - turned[:, :, :-1]).max() < 0.01
    assert noise.std() == pytest.approx(2.5, rel=0.02)


def test_the_turned_partner_is_the_turned_galaxy_with_opposite_shear() -> None:
    """Under a round PSF, +g at 0 degrees turned around pixel 24 is -g at 90 degrees; neighbours go along."""
    for stamps in (_quiet(SETS), _quiet(replace(SETS, neighbours=300.0))):
        images = _images(stamps)
        turned = np.rot90(images[:, 0], -1, axes=(1, 2))
        assert np.abs(images[:, 3][:, :, 1:] - turned[:, :, :-1]).max() < 1e-3 * images.max()


def test_flux_and_noise_are_set_once() -> None:
    stamps = replace(SETS, camera=replace(SETS.camera, gain=20.0))
    block = stamps.make(0)
    flux = block.table["flux"].to_numpy().reshape(6, 4)
    assert (flux == flux[:, :1]).all()
    variance = block.variance.reshape(6, 4, 48, 48)
    assert np.array_equal(variance[:, 0], variance[:, 1])
    assert variance.std() > 0
    snr = block.table["snr"].to_numpy().reshape(6, 4)
    assert (snr.max(1) > snr.min(1)).all()


def test_psf_pairs_differ_in_the_psf_alone() -> None:
    stamps = replace(preset("field-varying"), count=8, block=8, design=PsfPairs(0.05))
    block = stamps.make(0)
    table = block.table.to_pydict()
    assert table["branch"][:2] == ["+psf", "-psf"]
    for name in ("psf_e1", "psf_e2"):
        values = np.array(table[name])
        assert np.array_equal(values[::2], -values[1::2])
    assert np.allclose(np.hypot(table["psf_e1"], table["psf_e2"]), 0.05)
    for name in ("e1", "flux", "psf_fwhm", "offset_x"):
        assert table[name][::2] == table[name][1::2]
    assert not np.array_equal(block.psf[0], block.psf[1])
    assert np.array_equal(block.variance[::2], block.variance[1::2])


def test_sets_are_the_same_alone_and_in_a_larger_set() -> None:
    small, large = replace(SETS, count=5, block=3), replace(SETS, count=9, block=3)
    one, other = small.make(1), large.make(1)
    assert len(one.table) == 8
    assert np.array_equal(one.image, other.image[:8])
    assert str(one.table.to_pylist()) == str(other.table.slice(0, 8).to_pylist())


def test_designs_survive_being_written_and_wrong_ones_are_refused() -> None:
    for design in (ShearSets(0.03), PsfPairs(0.02), make_design(None)):
        stamps = replace(SETS, design=design)
        assert from_mapping(StampSet, to_mapping(stamps), "here") == stamps
    for make in (
        lambda: ShearSets(0.5),
        lambda: ShearSets(components=("g3",)),
        lambda: PsfPairs(0.0),
        lambda: make_design("triplets"),
        lambda: replace(SETS, population=Population(shear=(0.1, 0.0))),
    ):
        with pytest.raises(InputError):
            make()
