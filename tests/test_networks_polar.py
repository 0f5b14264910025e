"""The polar network: turned stamps give the same answer, members learn from their own part of a batch, it fuses."""

import copy

import pytest
import torch

from astroml_plugin.networks.folding import fuse
from astroml_plugin.networks.polar_cnn import PolarCNN

torch.set_num_threads(1)


def trained(**arguments) -> PolarCNN:
    """A network whose batch statistics are not those of a fresh one."""
    torch.manual_seed(0)
    network = PolarCNN(2, 3, widths=(4, 6, 8), hidden=8, core=6.0, radius=14.0, **arguments)
    for _ in range(3):
        network(torch.randn(12, 2, 32, 32) + 0.5)
    return network.eval()


@pytest.mark.parametrize("size", [33, 32])
def test_quarter_turns_about_the_centre_pixel_change_nothing(size: int) -> None:
    network = trained(directions=32)
    image = torch.randn(4, 2, size, size)
    turned = torch.rot90(image, 1, (2, 3))
    if size % 2 == 0:  # the centre is pixel side // 2: of an even side the turned row comes to lie one further
        turned = turned.roll(1, 2)
    with torch.inference_mode():
        expected = network(image)
        assert expected.std(0).min() > 1e-4
        torch.testing.assert_close(network(turned), expected, rtol=1e-3, atol=1e-5)
        assert (network(image.roll(5, 3)) - expected).abs().max() > 1e-4


def test_rings_are_sampled_where_they_are() -> None:
    network = trained(directions=8)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    ramp = torch.stack([x - 16, y - 16])[None]
    found = network.sampled(ramp)[0]
    expected = torch.stack(
        [network.radii[:, None] * network.angles.cos(), network.radii[:, None] * network.angles.sin()]
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_rings_follow_the_side_where_they_are_asked_to() -> None:
    following = PolarCNN(1, 2, size=100, core=0.0, radius=0.0)
    assert float(following.radii[-1]) == pytest.approx(41)
    assert float(following.radii[12]) == pytest.approx(16)
    assert float(PolarCNN(1, 2, size=100).radii[-1]) == pytest.approx(26)
    with pytest.raises(ValueError, match="core"):
        PolarCNN(1, 2, core=0.0, radius=0.0)


def test_training_turns_and_shifts_at_random_and_evaluation_does_not() -> None:
    network = trained(jitter=1.0)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    ramp = torch.stack([x - 16, y - 16])[None].expand(64, -1, -1, -1)
    centres = network.train().sampled(ramp).mean((2, 3))  # of a ramp the mean over a ring is the value at its centre
    assert centres.abs().max() <= 1.001
    assert centres.std(0).min() > 0.4
    assert network.eval().sampled(ramp).mean((2, 3)).abs().max() < 1e-4


def test_zoom_changes_sizes_in_training_only() -> None:
    network = trained(jitter=0.0, zoom=0.2)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    cone = ((x - 16).square() + (y - 16).square()).sqrt().expand(256, 2, -1, -1)
    ratio = network.train().sampled(cone)[:, 0, 10].mean(1) / network.radii[10]
    assert ratio.log().abs().max() < 0.22
    assert ratio.log().std() > 0.08
    torch.testing.assert_close(network.eval().sampled(cone)[0, 0, 10].mean(), network.radii[10], rtol=1e-2, atol=0)


def test_members_learn_from_parts_of_a_batch_and_answer_together() -> None:
    network = trained(members=2)
    image = torch.randn(8, 2, 32, 32)
    network.train()(image)[:4].square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.members[0].parameters())
    assert all(not parameter.grad.any() for parameter in network.members[1].parameters() if parameter.grad is not None)
    network.eval()
    with torch.inference_mode():
        apart = [member(network.sampled(image)) for member in network.members]
        torch.testing.assert_close(network(image), (apart[0] + apart[1]) / 2)
    assert network.train()(image[:3]).shape == (3, 3)  # too few to divide: all members see all of them


def test_fused_it_is_the_same_function() -> None:
    network = trained(members=2)
    image = torch.randn(4, 2, 32, 32)
    with torch.inference_mode():
        expected = network(image)
        fused = fuse(copy.deepcopy(network))
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules())
        torch.testing.assert_close(fused(image), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ({"psf": True}, "takes no PSF"),
        ({"activation": "step"}, "activation must be one of"),
        ({"rings": 10}, r"rings \(10\) in multiples of 4"),
        ({"directions": 12}, r"directions \(12\) in multiples of 8"),
        ({"core": 30.0}, r"core \(30.0\) above 0 and below its radius"),
        ({"members": 0}, r"members \(0\) of 1 or more"),
        ({"widths": (8, 8)}, "three widths"),
        ({"dropout": 1.0}, "dropout must be a fraction"),
    ],
)
def test_what_it_cannot_do_is_refused(argument: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PolarCNN(1, 2, **argument)
