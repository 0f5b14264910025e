"""Generator against critic: it learns, and divergence and mode collapse leave the last good epoch."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from astroml_plugin.core.errors import DivergedError, InputError
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.networks.anogan import AnoGAN
from astroml_plugin.networks.autoencoder import ERRORS
from astroml_plugin.tasks.anomaly.task import AnomalySettings, AnomalyTask
from astroml_plugin.training.adversarial import CHECKPOINT, AdversarialSettings, GanTrainer, fit_adversarial
from astroml_plugin.training.batches import Batch
from astroml_plugin.training.settings import TrainingRun
from tests.anomaly_samples import SIZE, population

torch.set_num_threads(1)
TASK = AnomalyTask(AnomalySettings(bands=("g", "r"), stamp_size=SIZE, latent=4))


class Stamps:
    """All stamps in two batches, every epoch."""

    def __init__(self, spoilt_from: int = 99) -> None:
        image, _ = population(96)
        self.cutouts, self.spoilt_from = from_stamps(image, None, None, bands=("g", "r")), spoilt_from

    def __len__(self) -> int:
        return len(self.cutouts)

    def epoch(self, number: int) -> Iterator[Batch]:
        for start in (0, 48):
            yield Batch(self.cutouts.take(slice(start, start + 48)), torch.zeros(48), np.arange(start, start + 48))

    ordered = epoch


def network() -> AnoGAN:
    torch.manual_seed(0)
    return AnoGAN(2, len(ERRORS) + 4, size=SIZE, widths=(4, 8), judge=())


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in module.state_dict().values()])


def test_it_learns_and_resumes_identically(tmp_path: Path) -> None:
    settings = AdversarialSettings(epochs=4, least_spread=0.0, learning_rate=2e-3)
    whole = network()
    history = fit_adversarial(TASK, whole, Stamps(), settings, TrainingRun(str(tmp_path / "a")))
    assert [record["epoch"] for record in history] == [0, 1, 2, 3]
    assert all(np.isfinite(record["distance"]) for record in history)
    assert not any(value.requires_grad for value in whole.generator.parameters())
    for epochs in (2, 4):
        parts = network()
        few = AdversarialSettings(epochs=epochs, least_spread=0.0, learning_rate=2e-3)
        fit_adversarial(TASK, parts, Stamps(), few, TrainingRun(str(tmp_path / "b")))
    torch.testing.assert_close(weights(parts.generator), weights(whole.generator))
    torch.testing.assert_close(weights(parts.critic), weights(whole.critic))


def test_a_collapse_is_told_and_the_last_good_epoch_kept(tmp_path: Path) -> None:
    one = network()
    real = one.generator.forward

    def collapsing(latent: torch.Tensor) -> torch.Tensor:
        return real(latent if seen["epoch"] < 1 else latent * 0 + 1.0)

    seen = {"epoch": 0}
    one.generator.forward = collapsing  # type: ignore[method-assign]
    history = fit_adversarial(
        TASK,
        one,
        Stamps(),
        AdversarialSettings(epochs=8, least_spread=1e-3, patience=2),
        TrainingRun(str(tmp_path), report=lambda record: seen.update(epoch=record["epoch"] + 1)),
    )
    assert [record["good"] for record in history] == [True, False, False]
    assert history[-1]["stopped"] == "collapsed; epoch 0 is kept"
    again = network()
    settings = AdversarialSettings(epochs=8, least_spread=1e-3, patience=2)
    fit_adversarial(TASK, again, Stamps(), settings, TrainingRun(str(tmp_path)))
    torch.testing.assert_close(weights(again.critic), weights(one.critic))


def test_numbers_that_are_no_longer_finite_stop_it(tmp_path: Path) -> None:
    one = network()

    def spoil(record: dict) -> None:
        with torch.no_grad():
            next(one.critic.parameters()).fill_(torch.nan)

    settings = AdversarialSettings(epochs=5, least_spread=0.0)
    history = fit_adversarial(TASK, one, Stamps(), settings, TrainingRun(str(tmp_path), report=spoil))
    assert len(history) == 2
    assert history[-1]["stopped"] == "diverged; epoch 0 is kept"
    assert weights(one.critic).isfinite().all()


def test_never_good_is_an_error(tmp_path: Path) -> None:
    settings = AdversarialSettings(epochs=2, least_spread=0.99, learning_rate=1e-6)
    with pytest.raises(DivergedError, match="never good in 2 epochs"):
        fit_adversarial(TASK, network(), Stamps(), settings, TrainingRun(str(tmp_path)))


def test_other_networks_and_other_checkpoints_are_refused(tmp_path: Path) -> None:
    settings = AdversarialSettings(epochs=1, least_spread=0.0)
    with pytest.raises(InputError, match="generator and a critic"):
        fit_adversarial(TASK, nn.Linear(2, 2), Stamps(), settings, TrainingRun(str(tmp_path)))
    fit_adversarial(TASK, network(), Stamps(), settings, TrainingRun(str(tmp_path), identity="a"))
    assert (tmp_path / CHECKPOINT).exists()
    with pytest.raises(InputError, match="another recipe"):
        fit_adversarial(TASK, network(), Stamps(), settings, TrainingRun(str(tmp_path), identity="b"))
    with pytest.raises(InputError, match="critic_steps"):
        AdversarialSettings(critic_steps=0)


def test_the_generator_that_is_kept_must_vary_not_the_one_that_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An average that never moved is the generator of the beginning, whose images are all alike."""
    monkeypatch.setattr(
        GanTrainer, "imitate", lambda self, n, draw: self._step("generator", -self.critic(self.made(n, draw)).mean())
    )
    settings = AdversarialSettings(epochs=1, learning_rate=2e-3)
    with pytest.raises(DivergedError, match="never good in 1 epochs"):
        fit_adversarial(TASK, network(), Stamps(), settings, TrainingRun(str(tmp_path)))


def test_the_average_forgets_the_first_steps() -> None:
    one = network()
    trainer, random = GanTrainer(one, AdversarialSettings(epochs=1), "cpu"), torch.Generator().manual_seed(0)
    before = {name: value.clone() for name, value in trainer.average.items()}
    name = "last.weight"
    trainer.imitate(8, random)
    now = one.generator.state_dict()[name]
    torch.testing.assert_close(trainer.average[name], 0.1 * before[name] + 0.9 * now)
