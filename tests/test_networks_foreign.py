"""Networks of others: the one that `infer` runs is the one that was trained, or a warning says why it is not faster."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from astroml_plugin.compute.forward import Forward, difference
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.inference.deciding import answers_alike
from astroml_plugin.tasks.classification.task import ClassifyTask
from astroml_plugin.training.bundle import Card, ModelBundle
from workflows.infer import infer
from workflows.ingest import ingest
from workflows.query import query

torch.set_num_threads(1)
SIDE = 24


class _Pooled(nn.Module):
    """Features, their mean over the stamp, one linear layer."""

    def __init__(self, bands: int, outputs: int, *, psf: bool = False) -> None:
        super().__init__()
        self.features = self.layers(bands)
        self.head = nn.Linear(8, outputs)

    def layers(self, bands: int) -> nn.Module:
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image).mean((2, 3)))


class ActivatingNorm(nn.BatchNorm2d):
    """A normalisation with its activation inside, as timm has."""

    def forward(self, image: Tensor) -> Tensor:
        return functional.relu(super().forward(image))


class StandardisedConvolution(nn.Conv2d):
    """A convolution that standardises its weights at every call."""

    def forward(self, image: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        return functional.conv2d(image, (self.weight - mean) / deviation, self.bias)


class ActivatingNorms(_Pooled):
    def layers(self, bands: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(bands, 8, 3), ActivatingNorm(8), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()
        )


class Standardised(_Pooled):
    def layers(self, bands: int) -> nn.Module:
        return nn.Sequential(StandardisedConvolution(bands, 8, 3), nn.BatchNorm2d(8), nn.ReLU())


class OwnForward(_Pooled):
    """A chain that activates between its two layers."""

    class Chain(nn.Sequential):
        def forward(self, image: Tensor) -> Tensor:
            return self[1](functional.relu(self[0](image)))

    def layers(self, bands: int) -> nn.Module:
        return self.Chain(nn.Conv2d(bands, 8, 3), nn.BatchNorm2d(8))


class SpectralNorm(_Pooled):
    def layers(self, bands: int) -> nn.Module:
        return nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(bands, 8, 3)), nn.BatchNorm2d(8), nn.ReLU())


class WeightNorm(_Pooled):
    def layers(self, bands: int) -> nn.Module:
        normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(bands, 8, 3))
        return nn.Sequential(normed, nn.BatchNorm2d(8), nn.ReLU())


class Hooked(_Pooled):
    """Keeps what its first convolution gave, by a hook."""

    def layers(self, bands: int) -> nn.Module:
        chain = nn.Sequential(nn.Conv2d(bands, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        chain[0].register_forward_hook(self._keep)
        return chain

    def _keep(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        self.seen = output

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image).mean((2, 3)) + self.seen.mean((2, 3)))


class Tied(_Pooled):
    """Reads the weights of its convolution, as an autoencoder with tied weights does."""

    def layers(self, bands: int) -> nn.Module:
        self.convolution, self.norm = nn.Conv2d(bands, 8, 3, bias=False), nn.BatchNorm2d(8)
        return nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        hidden = functional.relu(self.norm(self.convolution(image)))
        again = functional.conv_transpose2d(hidden, self.convolution.weight) - image
        return self.head(hidden.mean((2, 3))) + again.square().mean((1, 2, 3))[:, None]


class TiedChain(Tied):
    """Reads the weights of a convolution that stands in a chain: only a comparison tells."""

    def layers(self, bands: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(bands, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, image: Tensor) -> Tensor:
        hidden = self.features(image)
        again = functional.conv_transpose2d(hidden, self.features[0].weight) - image
        return self.head(hidden.mean((2, 3))) + again.square().mean((1, 2, 3))[:, None]


class TwoNames(_Pooled):
    """Holds one convolution under two names."""

    def layers(self, bands: int) -> nn.Module:
        self.first = nn.Conv2d(bands, 8, 1)
        again = nn.Conv2d(8, 8, 3, padding=1)
        return nn.Sequential(self.first, again, nn.BatchNorm2d(8), nn.ReLU(), again, nn.BatchNorm2d(8), nn.ReLU())


FOREIGN = [
    *(ActivatingNorms, Standardised, OwnForward, SpectralNorm, WeightNorm),
    *(Hooked, Tied, TiedChain, TwoNames),
]


@pytest.fixture(scope="module", autouse=True)
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The networks installed as a package of others would."""
    folder = tmp_path_factory.mktemp("foreign")
    metadata = folder / "foreign_networks-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-networks\nVersion: 1.0\n")
    lines = [f"{kind.__name__} = tests.test_networks_foreign:{kind.__name__}" for kind in FOREIGN]
    (metadata / "entry_points.txt").write_text("\n".join(["[astroml_plugin.networks]", *lines]))
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


def trained(kind: type[_Pooled], folder: Path) -> ModelBundle:
    """A bundle whose network has seen data: normalisations have statistics that matter."""
    task = ClassifyTask.from_settings(
        {"bands": ["r"], "classes": ["a", "b"], "label": "label", "stamp_size": SIDE, "pixel_scale": 0.2}
        | {"normalisation": {"unit": "noise"}}
    )
    torch.manual_seed(1)
    network = task.build_network(kind.__name__, {}).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    with torch.no_grad():
        for _ in range(5):
            network(torch.randn(16, 1, SIDE, SIDE) + 0.5)
    return ModelBundle.save(folder, network.eval(), Card("foreign", "classify", task.to_settings(), kind.__name__))


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_network_for_inference_is_the_one_that_was_trained(kind: type[_Pooled], tmp_path: Path) -> None:
    bundle = trained(kind, tmp_path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        ready = bundle.network(fused=True)
    image = torch.randn(8, 1, SIDE, SIDE)
    with torch.inference_mode():
        assert difference(bundle.network()(image), ready(image)) < 1e-5
    sentences = [str(warning.message) for warning in said if issubclass(warning.category, RuntimeWarning)]
    assert bool(sentences) == (kind is TiedChain), sentences
    if sentences:
        assert "runs as it was trained, without folding (folded, its answers differ by" in sentences[0]


@pytest.mark.parametrize("kind", [ActivatingNorms, OwnForward, SpectralNorm])
def test_the_catalog_has_the_answers_of_the_trained_network(kind: type[_Pooled], tmp_path: Path) -> None:
    drawn = np.random.default_rng(2)
    pixels = drawn.normal(0, 1, (40, 1, SIDE, SIDE)).astype(np.float32)
    np.savez(tmp_path / "s.npz", images=pixels, bands=np.array(["r"]), pixel_scale=0.2, object_id=np.arange(40))
    ingest(str(tmp_path / "s.npz"), out=str(tmp_path / "s.zarr"))
    bundle = trained(kind, tmp_path / "bundle")
    done = infer(str(tmp_path / "s.zarr"), bundle=str(tmp_path / "bundle"), out=str(tmp_path / "catalog"))
    assert (done.rows, done.units_failed) == (40, 0), query(done.catalog, "SELECT * FROM failures").to_pandas()
    rows = query(done.catalog, "SELECT p_a FROM catalog ORDER BY object_id")
    task = bundle.task()
    inputs, _ = task.prepare(from_stamps(pixels, None, None, bands=("r",), pixel_scale=0.2))
    with torch.inference_mode():
        wanted = task.probabilities(bundle.network()(*inputs))[:, 0].numpy()
    np.testing.assert_allclose(rows.to_pandas()["p_a"], wanted, atol=1e-5)


def test_a_compiled_network_that_is_another_function_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    network, image = nn.Linear(3, 2).eval(), torch.randn(4, 3)
    monkeypatch.setattr(torch, "compile", lambda given, dynamic: lambda item: given(item) + 0.1)
    forward = Forward(network, "cpu", compiling="always")
    with pytest.warns(RuntimeWarning, match=r"compiled, its answers differ by .*: runs eager"):
        answers = forward([image], 4)
    with torch.inference_mode():
        assert torch.equal(answers, network(image))
        assert torch.equal(forward([image], 4), network(image))


class Cancelling(nn.Module):
    """Takes the difference of large numbers: half precision has too few digits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, image: Tensor) -> Tensor:
        large = self.layer(image) + 1000
        return large - 1000


@pytest.mark.parametrize(("network", "kept"), [(nn.Linear(3, 2), True), (Cancelling(), False)])
def test_half_precision_that_changes_the_answers_is_not_used(network: nn.Module, kept: bool) -> None:
    network, image = network.eval(), torch.randn(4, 3, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert answers_alike(Forward(network, "cpu", dtype=torch.bfloat16), (image,)) is kept
    assert [str(warning.message).split(":")[0] for warning in said] == (
        [] if kept else ["network Cancelling runs in float32"]
    )


@pytest.mark.parametrize(
    ("wanted", "found", "gap"),
    [
        ([[1.0, 100.0]], [[1.0, 100.0]], 0.0),
        ([[1.0, 100.0]], [[1.5, 100.0]], 0.5),
        ([[1.0, 100.0]], [[1.0, 101.0]], 0.01),
        ([[float("nan"), 1.0]], [[float("nan"), 1.0]], 0.0),
        ([[float("nan"), 1.0]], [[0.0, 1.0]], float("inf")),
        ([[0.0, 0.0]], [[0.0, 0.5]], 0.5),
    ],
)
def test_a_difference_is_a_part_of_each_outputs_range(
    wanted: list[list[float]], found: list[list[float]], gap: float
) -> None:
    assert difference(torch.tensor(wanted), torch.tensor(found)) == pytest.approx(gap)
