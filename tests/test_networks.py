import pytest
import torch

from astroml_plugin.networks.multipole_mlp import TURNS, MultipoleMLP, multipoles
from astroml_plugin.networks.residual_cnn import ResidualCNN
from astroml_plugin.networks.strided_cnn import StridedCNN, fuse
from astroml_plugin.tasks.base import transform


@pytest.mark.parametrize("pooling", ["mean", "max", "grid"])
@pytest.mark.parametrize("size", [32, 48, 63])
def test_any_stamp_size_gives_one_row_per_object(pooling: str, size: int) -> None:
    network = StridedCNN(3, 5, pooling=pooling, dropout=0.1, activation="silu").eval()
    assert network(torch.randn(2, 3, size, size)).shape == (2, 5)


def test_size_of_the_default_network_is_that_of_a_small_cnn() -> None:
    network = StridedCNN(1, 8, psf=True, pooling="grid", grid=3)
    assert 100_000 < sum(value.numel() for value in network.parameters()) < 250_000


def test_psf_is_needed_when_asked_for() -> None:
    network = StridedCNN(1, 2, psf=True).eval()
    image = torch.randn(2, 1, 48, 48)
    sharp, wide = torch.zeros(2, 1, 25, 25), torch.full((2, 1, 25, 25), 1 / 625)
    sharp[..., 12, 12] = 1
    assert not torch.equal(network(image, sharp), network(image, wide))
    with pytest.raises(ValueError, match="second input"):
        network(image)


@pytest.mark.parametrize("argument", [{"activation": "cube"}, {"pooling": "sum"}])
def test_unknown_choices_are_refused(argument: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"must be one of relu|must be one of mean"):
        StridedCNN(1, 2, **argument)


def test_fused_network_is_the_same_function() -> None:
    torch.manual_seed(0)
    network = StridedCNN(2, 3, psf=True)
    image, psf = torch.randn(16, 2, 48, 48), torch.rand(16, 2, 25, 25) / 300
    for _ in range(3):
        network(image, psf)  # moves the running statistics
    network.eval()
    with torch.inference_mode():
        before = network(image, psf)
        after = fuse(network)(image, psf)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [32, 48, 63])
def test_residual_network_takes_any_stamp_and_fuses_to_the_same_function(size: int) -> None:
    torch.manual_seed(0)
    network = ResidualCNN(2, 3, psf=True, blocks=2, dropout=0.1)
    image, psf = torch.randn(8, 2, size, size), torch.rand(8, 2, 25, 25) / 300
    for _ in range(3):
        network(image, psf)
    network.eval()
    with torch.inference_mode():
        before, after = network(image, psf), fuse(network)(image, psf)
    assert before.shape == (8, 3)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_residual_network_grows_to_resnet18() -> None:
    network = ResidualCNN(3, 1000, widths=(64, 128, 256, 512), blocks=2)
    assert sum(value.numel() for value in network.parameters()) == 11_689_512  # as published for ResNet-18


def test_multipoles_of_white_noise_are_white() -> None:
    basis = multipoles(48, 8, 1.2, 9.0, 4)
    assert basis.shape == (48 * 48, 8 * 9)
    torch.testing.assert_close(basis.T @ basis, torch.eye(72), atol=0.02, rtol=0)


@pytest.mark.parametrize("bands", [1, 2])
def test_multipole_network_turns_exactly_with_the_stamp(bands: int) -> None:
    torch.manual_seed(0)
    network = MultipoleMLP(bands, 6, psf=True, heads=2, hidden=16).eval()
    image, psf = torch.randn(3, bands, 48, 48) + 5, torch.rand(3, bands, 25, 25)

    def turned(pixels: torch.Tensor) -> torch.Tensor:
        return transform(pixels, (1, 1, 0))  # a quarter from x towards y, about the centre pixel

    with torch.inference_mode():
        straight = network(image, psf).reshape(3, TURNS, 6)
        moved = network(turned(image), turned(psf)).reshape(3, TURNS, 6)
    torch.testing.assert_close(moved, straight.roll(-1, 1), atol=1e-5, rtol=1e-5)
    assert (straight[:, 0] - straight[:, 1]).abs().max() > 1e-4


def test_multipole_network_reads_its_own_features_and_refuses_what_does_not_fit() -> None:
    network = MultipoleMLP(1, 4, psf=True, hidden=8).eval()
    image, psf = torch.randn(2, 1, 48, 48), torch.rand(2, 1, 25, 25)
    torch.testing.assert_close(network(network.stem(image, psf)), network(image, psf)[:, :4])
    assert network.train()(image, psf).shape == (2, 4)
    with pytest.raises(ValueError, match="stamps of 48 px, not"):
        network(image[..., :40, :40], psf)
    with pytest.raises(ValueError, match="second input"):
        network(image)
    with pytest.raises(ValueError, match="5 outputs cannot be shared by 2 heads"):
        MultipoleMLP(1, 5, heads=2)
    with pytest.raises(ValueError, match="must be one of relu"):
        MultipoleMLP(1, 4, activation="cube")
