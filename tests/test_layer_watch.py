import numpy as np
import pytest
import torch
from torch import nn

from astroml_plugin.evaluation.training_figures import layer_curves, training_curves
from astroml_plugin.networks.layers import ACTIVATIONS
from astroml_plugin.networks.mlp import MLP
from astroml_plugin.networks.strided_cnn import StridedCNN
from astroml_plugin.training.layer_watch import LayerWatch

torch.set_num_threads(1)


def watched(network: nn.Module, image: torch.Tensor) -> dict[str, dict[str, float]]:
    watch = LayerWatch(network)
    with watch.forward():
        network(image).square().mean().backward()
    watch.look_back()
    return watch.record()


def deep(activation: str) -> nn.Module:
    torch.manual_seed(0)
    return MLP(1, 2, size=12, hidden=[32] * 8, activation=activation, batch_norm=False)


def test_gradients_vanish_through_sigmoids_and_less_through_relu() -> None:
    image = torch.randn(16, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    ratios = {}
    for activation in ("sigmoid", "tanh", "relu"):
        gradients = list(watched(deep(activation), image)["gradients"].values())
        assert len(gradients) == 9
        ratios[activation] = gradients[0] / gradients[-1]
    assert ratios["sigmoid"] < 1e-4 * ratios["tanh"]
    assert ratios["sigmoid"] < 1e-4 * ratios["relu"]


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_dead_units_are_counted(activation: str) -> None:
    image = torch.randn(16, 1, 12, 12)
    network = deep(activation)
    assert watched(network, image)["dead_units"]["layers.1"] < 0.1
    with torch.no_grad():
        network.layers[0].bias[:8] = -50.0  # relu: nothing passes; tanh and sigmoid: saturated
    dead = watched(network, image)["dead_units"]
    assert dead["layers.1"] == pytest.approx(0.25, abs=0.1)


def test_watching_changes_nothing_and_leaves_nothing() -> None:
    image = torch.randn(8, 1, 16, 16)
    torch.manual_seed(0)
    network = StridedCNN(1, 2, widths=(4, 8), hidden=8)
    network(image).square().mean().backward()
    plain = [one.grad.clone() for one in network.parameters()]
    network.zero_grad()
    torch.manual_seed(0)
    other = StridedCNN(1, 2, widths=(4, 8), hidden=8)
    found = watched(other, image)
    assert all(torch.equal(one, two.grad) for one, two in zip(plain, other.parameters()))
    assert not any(module._forward_pre_hooks for module in other.modules())
    assert set(found["gradients"]) == {"features.0", "features.3", "features.6", "head.0", "head.3", "head.5"}
    assert set(found["dead_units"]) == {"features.2", "features.5", "features.8", "head.1", "head.4"}


def test_in_place_activations_are_seen_before_they_act() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(400, 2))
    with torch.no_grad():
        network[0].bias[0] = -99.0
    assert watched(network, torch.randn(4, 1, 12, 12))["dead_units"] == {"1": 0.25}


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_every_activation_makes_a_network(name: str) -> None:
    assert StridedCNN(1, 3, widths=(4, 8), hidden=8, activation=name)(torch.randn(2, 1, 16, 16)).shape == (2, 3)


def test_pictures_show_layers_and_epochs() -> None:
    records = [
        {
            "epoch": epoch,
            "train_loss": 1.0,
            "validation_loss": 1.0,
            "gradients": {"a": 10.0**-epoch, "b": 1.0},
            "dead_units": {"c": 0.1 * epoch},
        }
        for epoch in range(4)
    ]
    figure = layer_curves([{**records[0], "gradients": {}}, *records[1:]])
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert [panel.get_title() for panel in panels] == [
        "gradient of a weight (rms), powers of ten",
        "share of dead units",
    ]
    shown = np.asarray(panels[0].images[0].get_array())
    assert shown.shape == (2, 4)
    assert shown[0, 3] == pytest.approx(-3)
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["a", "b"]
    assert len(layer_curves([{**one, "dead_units": {}} for one in records]).axes) == 2
    assert len(training_curves(records).axes) == 1
