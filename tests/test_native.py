"""Stamps prepared by compiled code are those that torch prepares, to float32 rounding, whatever is in them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from astroml_plugin.core.flags import MaskBit, ObjectFlag
from astroml_plugin.cutouts import Centring, Cutouts, crop, from_stamps, psf_fwhms, recentred
from astroml_plugin.pixels import native
from astroml_plugin.tasks.example_stamps import example_stamps
from astroml_plugin.tasks.gaps import gap_bits, lost_bands
from astroml_plugin.tasks.normalisation import Normalisation, border_level, border_width, gaussian_psf, normalise_psf
from astroml_plugin.tasks.psf_extent import cut_off
from astroml_plugin.training.bundle import ModelBundle

ROOT = Path(__file__).parents[1]
ROUNDING = 4e-6
"""Of float32, relative to the largest of a stamp's numbers or 1."""


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The compiled code, made here where the environment has none or an older one."""
    before = native._State.library, native._State.on
    if not native.usable():
        if shutil.which("cc") is None and shutil.which("gcc") is None:
            pytest.skip("there is no C compiler")
        folder = tmp_path_factory.mktemp("native")
        build = ["setup.py", "--quiet", "build_ext", "--build-lib", str(folder), "--build-temp", str(folder / "t")]
        subprocess.run([sys.executable, *build], cwd=ROOT, check=True)
        (library,) = folder.rglob("_native*.so")
        native._State.on = True
        assert native.load(library)
    yield
    native._State.library, native._State.on = before


def both(function: Any) -> tuple[Any, Any]:
    """What a function gives by torch, and by compiled code."""
    with native.switched(False):
        wanted = function()
    assert native.way() == native.NATIVE
    return wanted, function()


def close(found: Any, wanted: Any, rounding: float = ROUNDING) -> None:
    """Raise AssertionError where two arrays differ by more than rounding; infinities and NaN must be the same."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert found.shape == wanted.shape
    odd = ~np.isfinite(wanted)
    assert np.array_equal(found[odd], wanted[odd], equal_nan=True)
    assert np.isfinite(found[~odd]).all()
    if (~odd).any():
        axes = tuple(range(2, wanted.ndim))
        size = np.maximum(1.0, np.max(np.abs(np.where(odd, 0.0, wanted)), axis=axes or None, keepdims=bool(axes)))
        assert (np.abs(np.where(odd, 0.0, found - np.where(odd, 0.0, wanted))) <= rounding * size).all()


def raw(seed: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Image, variance, PSF and mask of some stamps with what surveys have: gaps, constants, NaN, huge values, views."""
    random = np.random.default_rng(seed)
    count, bands = int(random.integers(1, 6)), int(random.integers(1, 7))
    height, width = (int(side) for side in random.integers(3, 41, 2))
    if random.random() < 0.5:
        width = height
    wide = np.asarray(random.normal(size=(count, bands, height + 3, width + 2)) * 10.0 ** random.integers(-3, 6))
    y, x = np.mgrid[: height + 3, : width + 2]
    wide = wide + 300 * np.exp(-((y - height / 2 - 1) ** 2 + (x - width / 2) ** 2) / 8)
    if random.random() < 0.3:
        wide[random.integers(count), random.integers(bands)] *= 10.0 ** random.integers(10, 30)
    if random.random() < 0.3:
        wide[random.integers(count), random.integers(bands)] = random.choice([0.0, -99.0, 1e30])
    if random.random() < 0.3:
        wide[random.integers(count), :, : height // 2] = 3.25
    image = np.clip(np.nan_to_num(wide), 0, 255).astype(np.uint8) if random.random() < 0.25 else wide.astype(np.float32)
    variance = np.abs(random.normal(9, 3, wide.shape)).astype(np.float32) if random.random() < 0.6 else None
    if image.dtype == np.float32:
        for value in random.choice([np.nan, np.inf, -np.inf], random.integers(0, 3)):
            image[random.random(image.shape) < random.choice([0.0005, 0.3, 0.95])] = value
    if variance is not None and random.random() < 0.4:
        variance[random.integers(count), random.integers(bands)] = random.choice([0.0, np.nan, np.inf, 1e-42])
    mask = None
    if random.random() < 0.6:
        bits = [0, int(MaskBit.SATURATED), int(MaskBit.NO_DATA), 1, int(MaskBit.UNMASKED_NAN)]
        mask = random.choice(bits, wide.shape, p=[0.9, *[0.025] * 4]).astype(np.uint32)
        if random.random() < 0.4:
            mask[random.integers(count), random.integers(bands), :, : int(random.integers(1, width + 2))] = 1
    view = (slice(None), slice(None), slice(1, height + 1), slice(None, width))
    psf = random.normal(1e-3, 1e-3, (count, bands, 25, 25)) + gaussian_psf(random.uniform(1, 9), 25).numpy()
    if random.random() < 0.5:
        psf = np.roll(psf, random.integers(-2, 3, 2), (2, 3))
    if random.random() < 0.3:
        psf[random.integers(count), random.integers(bands)] = random.choice([0.0, np.nan, np.inf, -1.0])
    parts = [None if plane is None else plane[view] for plane in (image, variance, mask)]
    assert parts[0] is not None
    return parts[0], parts[1], psf.astype(np.float32), parts[2]


def stamps(seed: int) -> Cutouts:
    """Those of `raw` as a run has them."""
    image, variance, psf, mask = raw(seed)
    bands = tuple("ugrizy"[: image.shape[1]])
    return from_stamps(image, variance, psf, bands=bands, pixel_scale=0.2).masked(mask)


def scaling(seed: int, bands: int) -> Normalisation:
    random = np.random.default_rng(seed)
    unit = str(random.choice(["noise", "scale"]))
    return Normalisation(
        str(random.choice(["border", "none"])),
        unit,
        str(random.choice(["linear", "asinh"])),
        float(random.uniform(0.1, 5)),
        tuple(random.uniform(0.1, 9, bands)) if unit == "scale" else (),
        int(random.integers(1, 6)),
    )


@pytest.mark.parametrize("seed", [*range(24), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(24, 200))])
def test_pixels_bits_and_network_inputs_are_the_same(seed: int) -> None:
    wanted, found = both(lambda: stamps(seed))
    assert torch.equal(found.image, wanted.image)
    assert torch.equal(found.valid, wanted.valid)
    assert torch.equal(found.flags, wanted.flags)
    if wanted.variance is not None:
        assert torch.equal(found.variance, wanted.variance)
    normalisation = scaling(seed, len(wanted.bands))
    for size in (0, 16, 33):  # as stored, cut to a view, padded
        given = crop(wanted, size) if size else wanted
        needed = torch.arange(len(given.bands)) % 2 == 0
        arguments = (given.image, given.variance, given.valid, needed)
        (image, flags), (other, bits) = both(lambda arguments=arguments: normalisation.apply(*arguments))
        close(other, image)
        assert torch.equal(bits, flags)
        assert bool((other[~given.valid] == 0).all())
        for function in (border_level, border_width):
            level, same = both(lambda function=function, given=given: function(given.image.float(), given.valid, 3))
            np.testing.assert_allclose(same, level, rtol=1e-5)
        for function in (gap_bits, lost_bands):
            lost, same = both(lambda function=function, given=given: function(given))
            assert torch.equal(same, lost)


@pytest.mark.parametrize("seed", [*range(12), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(12, 100))])
def test_centres_and_psfs_are_the_same(seed: int) -> None:
    given = stamps(seed)
    (placed, centre), (other, found) = both(lambda: recentred(given, Centring(tolerance=0.5)))
    assert (centre is None) == (found is None)
    if centre is not None:
        sure = centre.offset.abs().sub(0.5).abs().amin(1) > 1e-3  # a move by rounding alone is none
        np.testing.assert_allclose(found.offset[sure], centre.offset[sure], atol=2e-3)
        np.testing.assert_allclose(found.error[sure], centre.error[sure], rtol=5e-3)
        same = sure & (found.single == centre.single) & (found.alone == centre.alone)
        assert bool((same | ~sure).all())
        assert torch.equal(other.image[sure], placed.image[sure])
        assert torch.equal(other.off_centre[sure], placed.off_centre[sure])
    assert given.psf is not None
    wide, narrow = both(lambda: psf_fwhms(given.psf))
    np.testing.assert_allclose(narrow, wide, rtol=2e-4)
    cut, same = both(lambda: cut_off(given.psf, 25))
    assert torch.equal(same, cut)
    for size in (25, 21):
        (unit, absent), (other, lacking) = both(lambda size=size: normalise_psf(given.psf, size))
        close(other, unit, 2e-5)
        assert torch.equal(lacking, absent)


@pytest.mark.parametrize("name", ["morphology", "lens", "ellipticity", "anomaly"])
@pytest.mark.parametrize("masked", [0.0, 0.002])
def test_rows_of_every_shipped_bundle_are_the_same(name: str, masked: float) -> None:
    bundle = ModelBundle.load(name)
    task, network, random = bundle.task(), bundle.network(fused=True), np.random.default_rng(1)
    drawn = example_stamps(task.settings, task.stamp_size, 48)
    variance = None
    if drawn.image.dtype != torch.uint8:
        variance = torch.from_numpy(random.normal(1, 0.05, drawn.image.shape).astype(np.float32))
    mask = (random.random(drawn.image.shape) < masked).astype(np.uint32)
    drawn = replace(drawn, variance=variance)

    def rows() -> tuple[dict[str, np.ndarray], np.ndarray]:
        with torch.inference_mode():
            placed, _ = recentred(drawn.masked(mask), task.settings.centring)
            inputs, flags = task.prepare(placed)
            return task.to_columns(network(*inputs), placed, flags)

    (wanted, flags), (found, bits) = both(rows)
    assert np.array_equal(bits, flags)
    assert wanted.keys() == found.keys()
    for column, values in wanted.items():
        if values.dtype == object:
            assert np.array_equal(found[column], values)
        else:
            scale = float(np.nanmax(np.abs(values), initial=1.0))
            np.testing.assert_allclose(found[column], values, rtol=2e-4, atol=1e-4 * scale, err_msg=column)


def test_no_stamps_and_wrong_shapes() -> None:
    nothing = np.zeros((0, 2, 8, 8), np.float32)
    image, missing, empty = native.normalise(nothing, None, None, native.Scaling(2, True, None, 1.0))
    assert (image.shape, missing.shape, empty.shape) == ((0, 2, 8, 8), (0, 2), (0,))
    with pytest.raises(ValueError, match="shapes"):
        native.normalise(nothing, np.zeros((1, 2, 8, 8), np.float32), None, native.Scaling(2, True, None, 1.0))
    with pytest.raises(TypeError, match="float64"):
        native.normalise(nothing.astype(np.float64), None, None, native.Scaling(2, True, None, 1.0))


def test_gradients_and_other_types_go_to_torch() -> None:
    plain = torch.zeros(1, 1, 8, 8)
    assert native.takes(plain, None, plain.to(torch.uint8))
    assert not native.takes(plain.double())
    assert not native.takes(plain.clone().requires_grad_())
    with native.switched(False):
        assert not native.takes(plain)
        assert native.way() == native.TORCH


def test_a_library_of_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = Path(native._State.library._name)  # type: ignore[union-attr]
    other = tmp_path / "native.c"
    other.write_bytes(native.SOURCE.read_bytes() + b"\n")
    monkeypatch.setattr(native, "SOURCE", other)
    assert not native.load(library)
    assert not native.load(tmp_path / "none.so")


def test_an_environment_variable_leaves_it_alone() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "from astroml_plugin.pixels import native; print(native.way())"],
        env={"ASTROML_NATIVE": "0", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == [native.TORCH]


def test_flags_of_the_source_are_those_of_the_catalog() -> None:
    text = native.SOURCE.read_text()
    told = ", ".join(f"{flag.name} = {int(flag)}" for flag in list(ObjectFlag)[:4])
    assert f"enum {{ {told} }}" in text
