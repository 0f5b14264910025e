"""What the network of `anomaly` measures by compiled code is what torch measures, to float32 rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from astroml_plugin.networks.autoencoder import chi_square, compressed
from astroml_plugin.networks.structure import PARTS, Structure
from astroml_plugin.pixels import native, native_structure
from tests.test_native import both, compiled

__all__ = ["compiled"]  # the fixture that every test here runs under


def stamps(seed: int, side: int, count: int, bands: int) -> Tensor:
    """Noise with an elongated source, a companion and a trail in some, and areas without a value (0) in others."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - side // 2
    image = random.normal(size=(count, bands, side, side))
    for number in range(count):
        at_x, at_y, bright = *random.uniform(-1.5, 1.5, 2), 10 ** random.uniform(-1, 3)
        image[number] += bright * np.exp(-((x - at_x) ** 2 / 9 + (y - at_y) ** 2 / 20))
        if number % 3 == 0:
            image[number] += 0.4 * bright * np.exp(-((x - 9) ** 2 + (y + 5) ** 2) / 8)
        if number % 4 == 1:
            image[number, :, side // 3] += 5
        if number % 5 == 2:
            image[number, random.integers(bands), :, : side // 3] = 0
    image[-1] = 0
    return torch.from_numpy(image.astype(np.float32))


@pytest.mark.parametrize(("side", "bands"), [(64, 3), (63, 1), (32, 5), (48, 2), (101, 1)])
def test_structure_is_the_same(side: int, bands: int) -> None:
    image = stamps(side, side, 15, bands)
    image[0] = (image[0] * 100).clamp_max(25)  # saturated
    view = torch.cat([image, image], 3)[..., :side]  # rows that do not lie one after the other
    with torch.inference_mode():
        wanted, found = both(lambda: Structure()(view, torch.ones_like(view)))
    assert wanted.shape == found.shape == (15, len(PARTS))
    scale = wanted[:-1].abs().amax(0)
    assert ((found - wanted)[:-1].abs() <= 3e-5 * scale + 3e-6).all(), ((found - wanted)[:-1].abs() / scale).amax(0)
    torch.testing.assert_close(found[-1], wanted[-1], rtol=1e-5, atol=1e-5)
    assert (wanted[:-1].std(0) > 0).all()  # every column says something here


def test_the_reconstruction_is_judged_the_same() -> None:
    seen, weight = stamps(1, 31, 12, 3), torch.rand(12, 3, 31, 31, generator=torch.Generator().manual_seed(1))
    model = seen + 0.3 * stamps(2, 31, 12, 3)
    weight[weight < 0.2] = 0
    with torch.inference_mode():
        for function in (lambda: chi_square(seen, model, weight), lambda: compressed(seen[..., 1:, ::2])):
            wanted, found = both(function)
            torch.testing.assert_close(found, wanted, rtol=2e-6, atol=2e-6)


def test_what_compiled_code_does_not_take_goes_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("compiled code was called")

    for name in ("structure", "asinh", "chi_square"):
        monkeypatch.setattr(native_structure, name, refuse)
    image = stamps(3, 33, 4, 1)
    wanted = image.clone().requires_grad_()
    compressed(wanted).sum().backward()
    assert wanted.grad is not None
    chi_square(image, wanted, torch.ones_like(image)).sum().backward()
    large = stamps(4, native_structure.LARGEST + 2, 2, 1)
    assert Structure()(large, large).shape == (2, len(PARTS))
    with native.switched(False):
        assert compressed(image).shape == image.shape


def test_stamps_of_another_side_than_their_places_are_refused() -> None:
    from astroml_plugin.networks.structure import _places

    for shape in ((2, 1, 31, 33), (2, 1, 35, 35)):
        with pytest.raises(ValueError, match="stamps of"):
            native_structure.structure(np.zeros(shape, np.float32), _places(33))
    with pytest.raises(ValueError, match="one is expected"):
        native_structure.chi_square(*(np.zeros((1, 1, side, 4), np.float32) for side in (4, 4, 5)), 3.0, 0.1)
    assert len(native_structure.structure(np.zeros((0, 1, 33, 33), np.float32), _places(33))[0]) == 0
