import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from training_samples import gaussians

from astroml_plugin.core.errors import DivergedError, InputError
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.tasks.ellipticity.task import EllipticityTask
from astroml_plugin.training import checkpoint
from astroml_plugin.training.batches import Batch
from astroml_plugin.training.fit import FitResult, fit
from astroml_plugin.training.forward import network_inputs, network_outputs
from astroml_plugin.training.settings import TrainingRun, TrainingSettings

torch.set_num_threads(1)
TASK = EllipticityTask.from_settings({"bands": ["r"], "stamp_size": 24, "psf": "none"})
SETTINGS = TrainingSettings(epochs=4, batch_size=32, learning_rate=5e-3, patience=0)


class InMemory:
    """Batches of Gaussians, the second way to feed `fit`."""

    def __init__(self, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        e = rng.uniform(-0.4, 0.4, (count, 2))
        self.cutouts = from_stamps(gaussians(e, rng), None, None, bands=("r",))
        self.targets = torch.from_numpy(e.astype(np.float32))

    def __len__(self) -> int:
        return len(self.targets)

    def epoch(self, number: int) -> Iterator[Batch]:
        yield from self._batches(np.random.default_rng(number).permutation(len(self)))

    def ordered(self) -> Iterator[Batch]:
        yield from self._batches(np.arange(len(self)))

    def _batches(self, order: np.ndarray) -> Iterator[Batch]:
        for start in range(0, len(order), 32):
            rows = order[start : start + 32]
            index = torch.from_numpy(rows)
            yield Batch(self.cutouts.take(index), self.targets[index], rows)


@pytest.fixture(scope="module")
def data() -> tuple[InMemory, InMemory]:
    return InMemory(256, 0), InMemory(64, 1)


def network(dropout: float = 0.2) -> nn.Module:
    torch.manual_seed(0)
    return TASK.build_network("strided_cnn", {"widths": [6, 12], "hidden": 24, "pooling": "grid", "dropout": dropout})


def run(data: tuple[InMemory, InMemory], out: Path, settings: TrainingSettings = SETTINGS, **more) -> FitResult:
    return fit(TASK, network(), *data, settings, TrainingRun(str(out), **more))


def losses(result: FitResult) -> list[tuple[float, float]]:
    return [(record["train_loss"], record["validation_loss"]) for record in result.history]


@pytest.fixture(scope="module")
def whole(data: tuple[InMemory, InMemory], tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    return run(data, tmp_path_factory.mktemp("whole"))


def test_it_learns_and_keeps_the_best_weights(data: tuple[InMemory, InMemory], whole: FitResult) -> None:
    assert whole.history[-1]["train_loss"] < whole.history[0]["train_loss"] - 0.3
    best = min(record["validation_loss"] for record in whole.history)
    assert whole.history[whole.best_epoch]["validation_loss"] == best
    outputs, targets, rows = network_outputs(TASK, whole.network, data[1])
    assert float(TASK.loss(outputs, targets)) == pytest.approx(best, abs=1e-5)
    assert rows.tolist() == list(range(64))


def test_resumed_training_has_identical_losses(
    data: tuple[InMemory, InMemory], whole: FitResult, tmp_path: Path
) -> None:
    class KilledError(Exception):
        pass

    def kill(record: dict) -> None:
        if record["epoch"] == 2:
            raise KilledError

    with pytest.raises(KilledError):
        run(data, tmp_path, report=kill)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3  # what was reported is kept
    torch.rand(7)  # other random numbers in between do not matter
    resumed = run(data, tmp_path)
    assert losses(resumed) == losses(whole)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    assert losses(run(data, tmp_path, resume=False)) == losses(whole)


def forget_the_stop(folder: Path) -> None:
    """Let a training that was stopped by its report go on."""
    url = str(folder / checkpoint.CHECKPOINT)
    data = Path(url).read_bytes()
    plain, _, _ = checkpoint._plain_values(data, url)
    assert plain["stopped"] == "reported"
    checkpoint.write_checkpoint(url, safetensors.torch.load(data), {**plain, "stopped": ""})


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_other_optimizers_resume_too(data: tuple[InMemory, InMemory], tmp_path: Path, optimizer: str) -> None:
    settings = replace(SETTINGS, epochs=2, optimizer=optimizer, schedule="cosine")
    straight = run(data, tmp_path / "a", settings)
    run(data, tmp_path / "b", settings, report=lambda record: True)
    forget_the_stop(tmp_path / "b")
    assert losses(run(data, tmp_path / "b", settings)) == losses(straight)


def test_log_is_one_json_line_per_epoch(data: tuple[InMemory, InMemory], tmp_path: Path) -> None:
    seen: list[dict] = []
    result = run(data, tmp_path, replace(SETTINGS, epochs=2), report=seen.append)  # type: ignore[arg-type]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == seen == result.history
    assert {"epoch", "train_loss", "validation_loss", "learning_rate", "objects_per_second"} <= set(lines[0])


def test_report_stops_and_so_does_patience(data: tuple[InMemory, InMemory], tmp_path: Path) -> None:
    result = run(data, tmp_path / "a", report=lambda record: record["epoch"] == 1)
    assert (len(result.history), result.stopped) == (2, "reported")
    settings = replace(SETTINGS, epochs=30, patience=1, learning_rate=0.3, schedule="constant", clip=0.0)
    try:
        result = run(data, tmp_path / "b", settings)
    except DivergedError:
        pytest.skip("diverged before it could stall")
    assert result.stopped == "early"
    assert len(result.history) < 30


def test_divergence_is_one_sentence_and_keeps_the_last_good_checkpoint(
    data: tuple[InMemory, InMemory], tmp_path: Path
) -> None:
    class Diverging(EllipticityTask):
        steps = 0

        def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            self.steps += outputs.requires_grad
            return super().loss(outputs, targets) * (float("nan") if self.steps > 12 else 1.0)

    task = Diverging(TASK.settings)
    with pytest.raises(DivergedError, match=r"became nan in epoch 1 .*lower learning_rate.*epoch 0 is kept"):
        fit(task, network(), *data, SETTINGS, TrainingRun(str(tmp_path)))
    assert (tmp_path / "checkpoint.safetensors").exists()
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1


def test_checkpoint_of_another_training_is_refused(data: tuple[InMemory, InMemory], tmp_path: Path) -> None:
    run(data, tmp_path, replace(SETTINGS, epochs=1), identity="one")
    with pytest.raises(InputError, match="another recipe, seed or data"):
        run(data, tmp_path, replace(SETTINGS, epochs=1), identity="two")


def test_unusable_stamps_are_left_out_and_counted(data: tuple[InMemory, InMemory], tmp_path: Path) -> None:
    broken = InMemory(40, 3)
    broken.cutouts.valid[:3] = False
    broken.cutouts.image[:3] = 0
    result = fit(TASK, network(), broken, data[1], replace(SETTINGS, epochs=1), TrainingRun(str(tmp_path)))
    assert result.history[0]["unusable"] == 3
    broken.cutouts.valid[:] = False
    with pytest.raises(InputError, match="none of the 40 training stamps has a valid pixel"):
        fit(TASK, network(), broken, data[1], SETTINGS, TrainingRun(str(tmp_path / "b")))


def test_training_sees_what_inference_sees(data: tuple[InMemory, InMemory], monkeypatch: pytest.MonkeyPatch) -> None:
    """One code path: the batch that `fit` trains on is what `prepare` gives, and nothing else normalises."""
    batch = next(data[0].ordered())
    inputs, _, _ = network_inputs(TASK, batch, "cpu")
    assert all(torch.equal(one, other) for one, other in zip(inputs, TASK.prepare(batch.cutouts)[0]))
    calls = []
    monkeypatch.setattr(
        type(TASK), "prepare", lambda self, cutouts: calls.append(1) or ((cutouts.image,), cutouts.flags)
    )
    network_inputs(TASK, batch, "cpu")
    assert calls == [1]


def test_schedule() -> None:
    rates = [SETTINGS.rate(progress) for progress in np.linspace(0, 1, 101)]
    assert rates[0] < 0.1 * max(rates)
    assert max(rates) == pytest.approx(SETTINGS.learning_rate, rel=0.01)
    assert rates[-1] < 1e-6
    assert replace(SETTINGS, schedule="constant").rate(0.9) == SETTINGS.learning_rate
    assert replace(SETTINGS, schedule="cosine").rate(0.0) == SETTINGS.learning_rate


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match=r"ema \(1.0\) is a decay per step"):
        TrainingSettings(ema=1.0)
    with pytest.raises(InputError, match="optimizer must be one of adamw, adam, sgd"):
        TrainingSettings(optimizer="lion")
    with pytest.raises(InputError, match=r"epochs of 1 or more, or none \(-1\)"):
        TrainingSettings(epochs=-1)


def test_a_fit_needs_its_epochs(data: tuple[InMemory, InMemory], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a fit needs epochs: give them, or let pacing\.paced choose"):
        run(data, tmp_path, TrainingSettings())


def test_rates_differ_from_layer_to_layer(data: tuple[InMemory, InMemory], tmp_path: Path) -> None:
    begin = network().state_dict()
    still = {name: 0.0 for name in begin if name.startswith("features")}
    settings = replace(SETTINGS, epochs=2)
    found = run(data, tmp_path / "a", settings, rates=still).network.state_dict()
    parameters = {name for name, _ in network().named_parameters()}
    assert {name for name in parameters if torch.equal(found[name], begin[name])} == parameters & set(still)
    run(data, tmp_path / "b", settings, rates=still, report=lambda record: record["epoch"] == 0)
    forget_the_stop(tmp_path / "b")
    again = run(data, tmp_path / "b", settings, rates=still).network.state_dict()
    assert all(torch.equal(found[name], again[name]) for name in found)


def test_average_of_the_weights_resumes_identically(data: tuple[InMemory, InMemory], tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=3, ema=0.98)
    straight = run(data, tmp_path / "a", settings)

    class KilledError(Exception):
        pass

    def kill(record: dict) -> None:
        if record["epoch"] == 1:
            raise KilledError

    with pytest.raises(KilledError):
        run(data, tmp_path / "b", settings, report=kill)
    resumed = run(data, tmp_path / "b", settings)
    assert losses(resumed) == losses(straight)
    for name, value in straight.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    plain = run(data, tmp_path / "c", replace(settings, ema=0.0))
    assert [train for train, _ in losses(plain)] == [train for train, _ in losses(straight)]  # it only watches
    assert losses(plain) != losses(straight)


def multipole_network() -> nn.Module:
    torch.manual_seed(0)
    return TASK.build_network("multipole_mlp", {"hidden": 24, "scales": 4, "largest": 5.0})


def test_cached_features_train_as_the_pixels_do_and_resume(data: tuple[InMemory, InMemory], tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=3, cache=True, augment=False)
    task = TASK.with_settings(normalisation=replace(TASK.settings.normalisation, stretch="linear"))

    def trained(out: str, settings: TrainingSettings, **more) -> FitResult:
        return fit(task, multipole_network(), *data, settings, TrainingRun(str(tmp_path / out), **more))

    cached = trained("a", settings)
    assert cached.history[-1]["train_loss"] < cached.history[0]["train_loss"] - 0.3
    pixels = trained("b", replace(settings, cache=False))
    assert cached.history[-1]["validation_loss"] == pytest.approx(pixels.history[-1]["validation_loss"], abs=0.3)
    trained("c", replace(settings, epochs=3, augment=True), report=lambda record: record["epoch"] == 0)
    straight = trained("d", replace(settings, augment=True))
    forget_the_stop(tmp_path / "c")
    assert losses(trained("c", replace(settings, augment=True))) == losses(straight)
    with pytest.raises(InputError, match="cache needs a network with a fixed stem"):
        run(data, tmp_path / "e", settings)


def test_mixed_precision_learns_too(data: tuple[InMemory, InMemory], tmp_path: Path) -> None:
    result = run(data, tmp_path, replace(SETTINGS, epochs=2, precision="bfloat16"))
    assert result.history[1]["train_loss"] < result.history[0]["train_loss"]
    assert all(value.dtype == torch.float32 for value in result.network.parameters())


@pytest.mark.parametrize("optimizer", ["nadam", "rmsprop", "adagrad"])
def test_optimizers_of_the_lecture_learn(data: tuple[InMemory, InMemory], tmp_path: Path, optimizer: str) -> None:
    result = run(data, tmp_path, replace(SETTINGS, epochs=2, optimizer=optimizer, schedule="step"))
    assert result.history[1]["train_loss"] < result.history[0]["train_loss"]
