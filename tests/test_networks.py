import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.registry import TASKS, load
from astroml_plugin.networks.folding import fuse
from astroml_plugin.networks.layers import PointConvolution
from astroml_plugin.networks.mlp import MLP
from astroml_plugin.networks.multipole_mlp import TURNS, MultipoleMLP, multipoles
from astroml_plugin.networks.residual_cnn import ResidualCNN
from astroml_plugin.networks.strided_cnn import StridedCNN
from astroml_plugin.networks.timm import TimmNetwork
from astroml_plugin.tasks.symmetries import transform
from astroml_plugin.training.bundle import Card, ModelBundle


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


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("stem_pooling", ["none", "mean", "max"])
def test_residual_network_pools_as_asked(pooling: str, stem_pooling: str) -> None:
    network = ResidualCNN(1, 2, pooling=pooling, stem_pooling=stem_pooling).eval()
    seen = []
    network.features.register_forward_hook(lambda module, given, found: seen.append(found))
    image = torch.randn(2, 1, 64, 64)
    found = network(image)
    assert seen[0].shape[-1] == (8 if stem_pooling == "none" else 4)
    pooled = seen[0].flatten(2).mean(2) if pooling == "mean" else seen[0].flatten(2).max(2).values
    torch.testing.assert_close(found, network.head(pooled))


def test_residual_network_has_the_stem_that_is_asked_for() -> None:
    network = ResidualCNN(3, 2, stem_kernel=3).eval()
    assert network.features[0].weight.shape[-2:] == (3, 3)
    assert network.features[:3](torch.zeros(1, 3, 64, 64)).shape[-2:] == (32, 32)


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu", "elu"])
@pytest.mark.parametrize("stem_pooling", ["none", "mean", "max"])
def test_activations_in_place_change_no_answer_and_no_input(activation: str, stem_pooling: str) -> None:
    network = ResidualCNN(2, 3, activation=activation, stem_pooling=stem_pooling, batch_norm=True).train()
    network(torch.randn(8, 2, 32, 32))  # so that there are statistics to fold
    network.eval()
    image = torch.randn(4, 2, 32, 32)
    kept = image.clone()
    with torch.inference_mode():
        wanted = network(image)
        found = fuse(network)(image)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(image, kept, atol=0, rtol=0)
    written = [layer for layer in network.modules() if getattr(layer, "inplace", False)]
    assert len(written) == (0 if activation == "gelu" else 7)


def test_an_activation_of_what_others_read_stays_out_of_place() -> None:
    chain = fuse(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Conv2d(1, 1, 3), torch.nn.ReLU()).eval())
    assert [getattr(layer, "inplace", None) for layer in chain] == [False, None, True]


class Preactivated(torch.nn.Module):
    """A block as others write it: one activation, called on the input too."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = torch.nn.ReLU()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3, 1, 1), self.relu, torch.nn.Conv2d(1, 1, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + self.body(self.relu(image))


def test_an_activation_that_is_called_twice_stays_out_of_place() -> None:
    network, image = Preactivated().eval(), torch.randn(2, 1, 8, 8)
    kept = image.clone()
    with torch.inference_mode():
        wanted = network(image)
        torch.testing.assert_close(fuse(network)(image), wanted)
    torch.testing.assert_close(image, kept, atol=0, rtol=0)


def test_stem_pools_before_an_activation_that_rises() -> None:
    network = ResidualCNN(1, 2, stem_pooling="max")
    assert [type(layer).__name__ for layer in network.features[:4]] == ["Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU"]
    network = ResidualCNN(1, 2, stem_pooling="max", activation="silu")
    assert [type(layer).__name__ for layer in network.features[2:4]] == ["SiLU", "MaxPool2d"]


def test_weights_of_residual_network_keep_their_names() -> None:
    names = list(ResidualCNN(1, 2).state_dict())
    assert names[0] == "features.0.weight"
    assert "features.3.body.0.weight" in names
    assert names[-2:] == ["head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ({"pooling": "grid"}, "pooling must be one of mean, max"),
        ({"stem_pooling": "min"}, "stem_pooling must be one of none, max, mean"),
        ({"stem_kernel": 4}, "stem_kernel must be an odd number of pixels, not 4"),
        ({"stem_kernel": "5"}, "stem_kernel must be an odd number of pixels, not '5'"),
        ({"activation": "cube"}, "must be one of relu"),
        ({"dropout": 1.0}, "dropout must be a fraction"),
    ],
)
def test_residual_network_refuses_unknown_choices(argument: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ResidualCNN(1, 2, **argument)


@pytest.mark.parametrize("hidden", [(), (32,), (64, 32, 16)])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_dense_network_from_perceptron_to_deep(hidden: tuple[int, ...], batch_norm: bool) -> None:
    network = MLP(3, 4, size=21, binning=2, hidden=hidden, batch_norm=batch_norm, dropout=0.2, activation="elu").eval()
    dense = [module for module in network.modules() if isinstance(module, torch.nn.Linear)]
    assert [module.in_features for module in dense] == [300, *hidden]
    assert network(torch.randn(2, 3, 21, 21)).shape == (2, 4)


def test_perceptron_sees_averages_of_pixels_and_the_psf() -> None:
    network = MLP(1, 1, psf=True, size=4, psf_size=3, hidden=(), binning=2).eval()
    image, psf = torch.rand(1, 1, 4, 4), torch.rand(1, 1, 3, 3)
    means = torch.stack([image[0, 0, y : y + 2, x : x + 2].mean() for y in (0, 2) for x in (0, 2)])
    layer = network.layers[0]
    expected = layer.weight[0] @ torch.cat([means, 100 * psf.flatten()]) + layer.bias[0]
    torch.testing.assert_close(network(image, psf)[0, 0], expected)
    with pytest.raises(ValueError, match="second input"):
        network(image)
    with pytest.raises(ValueError, match="stamps of 4 px"):
        network(torch.rand(1, 1, 5, 5), psf)


@pytest.mark.parametrize("argument", [{"binning": 0}, {"binning": 49}, {"hidden": (8, 0)}, {"dropout": -0.1}])
def test_dense_network_refuses_what_has_no_sense(argument: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        MLP(1, 2, **argument)


class _Backbone(torch.nn.Module):
    """What timm gives for num_classes = 0: features."""

    num_features = 6

    def __init__(self, in_chans: int) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(in_chans, 6, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.stem(image).mean((2, 3))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """A module in timm's place that keeps what it was asked for."""
    asked: list[dict] = []

    def create_model(name: str, **arguments: object) -> torch.nn.Module:
        asked.append({"name": name, **arguments})
        return _Backbone(arguments["in_chans"])  # type: ignore[arg-type]

    timm = types.SimpleNamespace(list_models=lambda: ["resnet18", "resnet50"], create_model=create_model)
    monkeypatch.setitem(sys.modules, "timm", timm)
    return asked


def test_timm_backbone_by_name_fetches_nothing_unless_asked(stand_in: list[dict]) -> None:
    network = TimmNetwork(5, 3, psf=True, name="resnet50", options={"img_size": 40}).eval()
    assert stand_in == [{"name": "resnet50", "pretrained": False, "in_chans": 5, "num_classes": 0, "img_size": 40}]
    assert network(torch.randn(2, 5, 40, 40), torch.rand(2, 5, 25, 25)).shape == (2, 3)
    TimmNetwork(5, 3, pretrained=True)
    assert stand_in[-1]["pretrained"] is True
    with pytest.raises(InputError, match="near are resnet18"):
        TimmNetwork(1, 2, name="resnet19")


def test_bundle_of_a_pretrained_backbone_fetches_nothing(stand_in: list[dict], tmp_path: Path) -> None:
    settings = {"bands": ["r"], "stamp_size": 32, "classes": ["a", "b"]}
    task = load(TASKS, "classify").from_settings(settings)
    arguments = {"name": "resnet18", "pretrained": True}
    network = task.build_network("timm", arguments)
    made = ModelBundle.save(str(tmp_path / "b"), network, Card("b", "classify", task.to_settings(), "timm", arguments))
    torch.testing.assert_close(made.network().state_dict()["head.weight"], network.state_dict()["head.weight"])
    # in training; on the meta device; for its weights
    assert [call["pretrained"] for call in stand_in] == [True, False, False]


def test_timm_that_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match="pip install timm"):
        TimmNetwork(1, 2)


def test_few_channels_train_in_channels_last() -> None:
    """torch's own gradient of a strided 1 x 1 convolution corrupts memory there."""
    torch.manual_seed(0)
    network = ResidualCNN(2, 3, widths=(4, 4, 8)).to(memory_format=torch.channels_last)
    image = torch.randn(8, 2, 32, 32).contiguous(memory_format=torch.channels_last)
    for _ in range(20):
        network(image).square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())
    strided = torch.nn.Conv2d(4, 8, 1, 2, bias=False)
    ours = PointConvolution(4, 8, 2)
    ours.load_state_dict(strided.state_dict())
    features = torch.randn(2, 4, 9, 8)
    torch.testing.assert_close(ours(features), strided(features))


class _Joined(nn.Module):
    """Convolutions and normalisations joined by a forward method, as backbones of other libraries have them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.norm2, self.second = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)
        self.shared, self.norm3 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found = torch.relu(self.norm1(self.first(image)))
        found = self.second(torch.relu(self.norm2(found)))  # before its convolution: it stays
        raw = self.shared(found)
        return self.norm3(raw) + raw  # what is used twice cannot be folded


def test_normalisations_are_folded_along_the_data_and_only_where_that_is_the_same() -> None:
    torch.manual_seed(1)
    network, image = _Joined(), torch.randn(5, 2, 12, 12)
    for _ in range(3):
        network(image)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    network.eval()
    with torch.inference_mode():
        before, after = network(image), fuse(network)(image)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    kept = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert kept == ["norm2", "norm3"]
