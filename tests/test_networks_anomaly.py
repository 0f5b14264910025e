"""Autoencoder and f-AnoGAN: symmetric, noise-aware, and rows in the promised order."""

import pytest
import torch

from astroml_plugin.networks.anogan import AnoGAN
from astroml_plugin.networks.autoencoder import (
    ERRORS,
    Autoencoder,
    Judge,
    Measured,
    chi_square,
    compressed,
    middle,
    posed,
)
from astroml_plugin.networks.folding import fuse
from astroml_plugin.networks.structure import PARTS, Structure
from astroml_plugin.tasks.symmetries import SYMMETRIES, transform
from tests.test_networks_structure import galaxies

torch.set_num_threads(1)
SMALL = {"widths": (4, 8), "judge": (1, 2)}


@pytest.mark.parametrize("kind", [Autoencoder, AnoGAN])
@pytest.mark.parametrize("size", [40, 64])
def test_a_turned_stamp_gives_the_same_row(kind: type, size: int) -> None:
    network = kind(2, len(ERRORS) + 6, size=size, **SMALL).eval()
    image, weight = galaxies(6, size), torch.rand(6, 2, size, size)
    with torch.inference_mode():
        plain = network(image, weight)
        assert plain.shape == (6, len(ERRORS) + 6)
        for symmetry in SYMMETRIES[1:]:
            turned = network(transform(image, symmetry), transform(weight, symmetry))
            torch.testing.assert_close(turned, plain, atol=2e-4, rtol=2e-4)
        torch.testing.assert_close(fuse(network)(image, weight), plain, atol=2e-4, rtol=2e-4)


def test_the_pose_is_one_of_the_eight() -> None:
    image = torch.randn(16, 1, 9, 9)
    (found,) = posed(image)
    for before, after in zip(image, found):
        turned = [transform(before, symmetry) for symmetry in SYMMETRIES]
        assert any(torch.equal(one, after) for one in turned)


def test_chi_square_is_one_for_noise_and_blind_where_invalid() -> None:
    image, weight = torch.randn(64, 1, 31, 31), torch.ones(64, 1, 31, 31)
    found = chi_square(compressed(image), torch.zeros_like(image), weight)
    assert found.mean() == pytest.approx(1.0, abs=0.15)  # bent by the compression
    louder = chi_square(compressed(2 * image), torch.zeros_like(image), weight / 4)
    assert louder.mean() == pytest.approx(float(found.mean()), rel=0.15)
    spoilt = image.clone()
    spoilt[..., :5, :] = 1e6
    seen = weight.clone()
    seen[..., :5, :] = 0
    assert chi_square(compressed(spoilt), torch.zeros_like(image), seen).max() < 2


def test_a_bright_object_may_be_off_by_a_tenth() -> None:
    bright = torch.full((1, 1, 5, 5), 1000.0)
    weight = torch.ones_like(bright)
    near, far = (chi_square(compressed(bright), compressed(part * bright), weight) for part in (0.9, 0.5))
    assert near.item() == pytest.approx(1.1, abs=0.2)
    assert far.item() > 30


def test_a_variational_autoencoder_draws_while_it_trains() -> None:
    network = Autoencoder(1, len(ERRORS) + 4, size=32, variational=True, **SMALL)
    image = galaxies(8, 32)[:, :1]
    weight = torch.ones_like(image)
    network.eval()
    assert torch.equal(network(image, weight), network(image, weight))
    assert (network(image, weight)[:, ERRORS.index("divergence")] > 0).all()
    network.train()
    errors = ERRORS.index("reconstruction")
    assert not torch.equal(network(image, weight)[:, errors], network(image, weight)[:, errors])


def test_the_judge_sees_the_middle() -> None:
    judge = Judge(1, (1, 2), 8, 0.0).eval()
    image = galaxies(2, 80)[:, :1]
    far = image.clone()
    far[..., :4, :] += 100
    assert torch.equal(judge(image), judge(far))
    assert middle(torch.zeros(1, 1, 31, 31), 49).shape[-1] == 31


def test_arguments_that_cannot_be_are_refused() -> None:
    for kind in (Autoencoder, AnoGAN):
        with pytest.raises(ValueError, match="no PSF"):
            kind(1, 10, psf=True)
        with pytest.raises(ValueError, match="latent"):
            kind(1, len(ERRORS))
    assert Autoencoder(1, len(ERRORS) + 1, size=32, judge=()).judge is None


def test_generator_and_critic_stay_as_they_are() -> None:
    network = AnoGAN(1, len(ERRORS) + 4, size=32, **SMALL).train()
    assert network.encoder.training
    assert not network.generator.training
    assert not network.critic.training


@pytest.mark.slow
def test_the_whole_network_compiles_in_one_graph_without_a_word(recwarn: pytest.WarningsRecorder) -> None:
    """A graph that breaks stops a GPU and is compiled in parts; tables of pixels are constants of it."""
    torch.manual_seed(0)
    network = Measured(Autoencoder(2, len(ERRORS) + 6, size=48, **SMALL), Structure(), len(PARTS)).eval()
    graphs: list[object] = []

    def keep(graph: torch.fx.GraphModule, inputs: object) -> object:
        graphs.append(graph)
        return graph.forward

    image = galaxies(4, 48)
    with torch.inference_mode():
        answers = torch.compile(network, backend=keep, dynamic=False)(image, torch.ones_like(image))
        torch.testing.assert_close(answers, network(image, torch.ones_like(image)), rtol=1e-4, atol=1e-4)
    assert len(graphs) == 1
    assert list(recwarn) == []
