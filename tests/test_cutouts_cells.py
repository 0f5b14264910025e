"""What is made of a tile's PSFs is made once for its cells, whatever is done to the stamps before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from astroml_plugin import cutouts as cut
from astroml_plugin.pixels import Tile
from astroml_plugin.tasks import normalisation, psf_extent
from astroml_plugin.tasks.ellipticity.task import EllipticityTask

SIDE, STAMP, BANDS = 160, 32, ("g", "r", "i")


@pytest.fixture(scope="module")
def tile() -> cut.DeviceTile:
    """Four cells; the PSF of one lies off its pixel, and one has none in a band."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:25, :25] - 12.0
    psf = np.empty((3, 2, 2, 25, 25), np.float32)
    for band, row, column in np.ndindex(3, 2, 2):
        width = 1.4 + 0.1 * band + 0.2 * row + 0.1 * column
        psf[band, row, column] = np.exp(-0.5 * ((x - 0.4 * row) ** 2 + y**2) / width**2)
    psf[1, 0, 1] = np.nan
    image = rng.normal(size=(3, SIDE, SIDE)).astype(np.float32)
    return cut.to_device(Tile(image, np.ones_like(image), psf=psf), BANDS, pixel_scale=0.2)


@pytest.fixture(scope="module")
def stamps(tile: cut.DeviceTile) -> cut.Cutouts:
    x, y = np.random.default_rng(4).uniform(20, SIDE - 20, (2, 60))
    return around(tile, x, y)


def around(tile: cut.DeviceTile, x: np.ndarray, y: np.ndarray, step: float = 1.0) -> cut.Cutouts:
    unknown = np.full((len(x), 2, 2), np.nan)
    return cut.around_resampled(tile, x, y, STAMP, step, origin=(0, 0), jacobian=unknown, padded=True)


def alone(stamps: cut.Cutouts) -> cut.Cutouts:
    """The same stamps, each with a PSF of its own."""
    return replace(stamps, psf=None if stamps.psf is None else stamps.psf.clone(), shared=None)


def counted(calls: list[int]):
    def make(psf: Tensor, size: int) -> tuple[Tensor, ...]:
        calls.append(len(psf))
        return normalisation.normalise_psf(psf, size)

    return make


def test_once_for_the_cells_of_the_tile_not_once_a_batch(tile: cut.DeviceTile, stamps: cut.Cutouts) -> None:
    calls: list[int] = []
    make = counted(calls)
    for batch in cut.batches(stamps, 20):
        for chosen in (batch, batch, replace(batch, image=batch.image + 1)):
            assert all(map(alike, chosen.of_psf(make, 25), normalisation.normalise_psf(chosen.psf, 25)))
    assert calls == [4]
    stamps.of_psf(make, 21)
    assert calls == [4, 4]  # another setting is another thing


def alike(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one.double(), other.double(), atol=1e-7)


def test_fewer_stamps_than_cells_are_treated_alone(tile: cut.DeviceTile) -> None:
    calls: list[int] = []
    few = around(replace(tile), np.array([40.0, 90.0]), np.array([40.0, 90.0]))
    few.of_psf(counted(calls), 25)
    assert calls == [2]


def test_a_psf_that_was_changed_by_hand_counts(stamps: cut.Cutouts) -> None:
    other = replace(stamps, psf=torch.ones_like(stamps.psf))
    assert torch.equal(other.of_psf(normalisation.normalise_psf, 25)[0], torch.full_like(other.psf, 1 / 625))
    assert torch.equal(other.take(slice(0, 5)).psf, other.psf[:5])
    assert torch.equal(other.select(("r",)).psf, other.psf[:, 1:2])


@pytest.mark.parametrize(
    "change",
    [
        lambda stamps: stamps.select(("i", "g")),
        lambda stamps: stamps.take(torch.tensor([7, 3, 3, 50, 1])),
        lambda stamps: stamps.select(("r",)).take(slice(10, 40)).select(("r",)),
        lambda stamps: cut.resampled(stamps, 1.25),
        lambda stamps: cut.crop(stamps, 20).in_unit(25.0),
        lambda stamps: cut.Cutouts.concatenate([stamps, stamps]),
    ],
    ids=["bands", "rows", "rows of a band", "resampled", "cropped", "joined"],
)
def test_whatever_is_done_to_the_stamps_their_psfs_are_the_same(change, stamps: cut.Cutouts) -> None:
    shared, single = change(stamps), change(alone(stamps))
    assert torch.equal(shared.psf, single.psf) or torch.allclose(shared.psf, single.psf, equal_nan=True, atol=1e-7)
    for function in (normalisation.normalise_psf, psf_extent.cut_off):
        first, second = shared.of_psf(function, 25), function(single.psf, 25)
        for one, other in zip(*((item,) if isinstance(item, Tensor) else item for item in (first, second))):
            assert alike(one, other)


@pytest.mark.parametrize("step", [1.0, 1.25])
def test_a_task_prepares_the_same_inputs_and_flags(tile: cut.DeviceTile, step: float) -> None:
    x, y = np.random.default_rng(5).uniform(30, SIDE - 30, (2, 40))
    stamps = around(tile, x, y, step)
    settings = {"bands": ["r"], "stamp_size": STAMP, "pixel_scale": 0.2, "psf_fwhm": [3.5, 3.9], "psf": "required"}
    task = EllipticityTask.from_settings(settings)
    assert stamps.shared is not None
    inputs, flags = task.prepare(stamps.select(("r",)))
    wanted, same = task.prepare(alone(stamps).select(("r",)))
    assert torch.equal(flags, same)
    assert all(map(alike, inputs, wanted))
