"""The equivariant network: the same answer from every side, and folded the same function."""

import copy

import pytest
import torch

from astroml_plugin.networks.equivariant_cnn import EquivariantCNN, SymmetricConvolution
from astroml_plugin.networks.folding import fuse
from astroml_plugin.tasks.symmetries import SYMMETRIES

torch.set_num_threads(1)


def trained(**arguments) -> EquivariantCNN:
    """A network whose batch statistics are not those of a fresh one."""
    torch.manual_seed(0)
    network = EquivariantCNN(2, 3, widths=(2, 3), **arguments)
    for _ in range(3):
        network(torch.randn(8, 2, 33, 33) + 0.5)
    return network.eval()


def symmetric(image: torch.Tensor, swap: int, flip_x: int, flip_y: int) -> torch.Tensor:
    """About the middle of the array, whatever its size."""
    turned = image.transpose(-1, -2) if swap else image
    return turned.flip([axis for axis, flipped in ((-1, flip_x), (-2, flip_y)) if flipped])


@pytest.mark.parametrize(("size", "arguments"), [(33, {}), (41, {"halve_first": True})])
def test_turned_and_mirrored_stamps_give_the_same_answer(size: int, arguments: dict) -> None:
    network = trained(**arguments)
    image = torch.randn(4, 2, size, size)
    with torch.inference_mode():
        expected = network(image)
        assert expected.std(0).min() > 1e-4
        for symmetry in SYMMETRIES:
            torch.testing.assert_close(network(symmetric(image, *symmetry)), expected, rtol=1e-4, atol=1e-5)


def test_a_stamp_that_is_changed_otherwise_gives_another_answer() -> None:
    network = trained()
    image = torch.randn(4, 2, 33, 33)
    with torch.inference_mode():
        assert (network(image.roll(5, -1)) - network(image)).abs().max() > 1e-4


def test_folded_it_is_the_same_function_in_plain_convolutions() -> None:
    network = trained(blocks=2)
    image = torch.randn(4, 2, 64, 64)
    with torch.inference_mode():
        expected = network(image)
        folded = fuse(copy.deepcopy(network))
        assert not any(isinstance(module, SymmetricConvolution | torch.nn.BatchNorm2d) for module in folded.modules())
        torch.testing.assert_close(folded(image), expected, rtol=1e-4, atol=1e-5)


def test_orientations_share_their_statistics() -> None:
    layer = SymmetricConvolution(1, 2, 3, plain=True)
    image = torch.randn(16, 1, 9, 9)
    one, other = layer(image), layer(torch.rot90(image, 1, (2, 3)))
    torch.testing.assert_close(one.mean(), other.mean())
    assert layer.norm.num_features == 2


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="takes no PSF"):
        EquivariantCNN(1, 2, psf=True)
    with pytest.raises(ValueError, match="activation must be one of"):
        EquivariantCNN(1, 2, activation="step")
