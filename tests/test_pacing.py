"""Trainings that follow the number of stamps, and the sentence that says when one has not converged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_samples import class_stamps, ellipticity_stamps

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import to_mapping
from astroml_plugin.tasks.augmentation import Warp
from astroml_plugin.tasks.classification.task import ClassifyTask
from astroml_plugin.tasks.ellipticity.task import EllipticityTask
from astroml_plugin.training.about import about_bundle
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.convergence import blind_loss, unconverged
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.pacing import pace, paced
from astroml_plugin.training.plan import plan_training
from astroml_plugin.training.recipe import Recipe, to_toml
from astroml_plugin.training.settings import TrainingSettings
from workflows.cli import main
from workflows.recipe import read_recipe, shipped
from workflows.train import train

torch.set_num_threads(1)
OPEN = TrainingSettings()


def steps(settings: TrainingSettings, stamps: int) -> int:
    return settings.epochs * -(-stamps // settings.batch_size)


@pytest.mark.parametrize("stamps", [300, 1000, 4000, 10_000, 100_000])
def test_few_stamps_get_as_many_steps_as_many(stamps: int) -> None:
    found = paced(OPEN, stamps, side=64, turns=True)
    assert steps(found, stamps) >= 1400
    assert (found.ema > 0) == (found.warp != Warp()) == (stamps < 4096)


def test_many_stamps_are_trained_as_ever() -> None:
    wanted = TrainingSettings(epochs=12, batch_size=128, patience=8, ema=0.0, warp=Warp(), mixup=0.0)
    for stamps in (16_384, 50_000, 10**7):
        assert paced(OPEN, stamps, side=64, turns=True) == wanted
    assert TrainingSettings(epochs=12) == wanted


def test_a_handful_of_stamps_ends() -> None:
    found = paced(OPEN, 1)
    assert found.epochs <= 400
    assert paced(OPEN, 40).epochs <= 400


def test_what_a_recipe_gives_wins() -> None:
    given = TrainingSettings(batch_size=16, patience=0, ema=0.0, warp=Warp(gain=0.1))
    found = paced(given, 300, side=64, turns=True)
    assert (found.batch_size, found.patience, found.ema, found.warp) == (16, 0, 0.0, Warp(gain=0.1))
    assert found.epochs > 12
    explicit = TrainingSettings(epochs=5)
    assert paced(explicit, 300, side=64, turns=True) == explicit
    assert paced(OPEN, 300, side=64).warp == Warp()  # a task whose labels turn with the stamp
    assert paced(TrainingSettings(augment=False), 300, side=64, turns=True).warp == Warp()


@pytest.mark.parametrize(
    "name", [name for name in shipped() if name not in ("classify", "regress", "photoz", "pretrain_contrast")]
)
def test_shipped_bundles_are_trained_as_ever(name: str) -> None:
    """Their recipes give epochs, so that nothing follows the number of stamps."""
    training = read_recipe(name).training
    assert training.epochs > 0
    assert paced(training, 100, side=64, turns=True) == training


def test_a_plan_fills_its_recipe_and_its_identity_tells(tmp_path: Path) -> None:
    recipe = Recipe("classify", settings={"label": "kind"})
    assert Recipe.from_mapping(_parsed(to_toml(recipe))) == recipe
    small, large = (LabelledStamps([class_stamps(str(tmp_path / f"{n}.zarr"), n)]) for n in (120, 240))
    plan = plan_training(recipe, small)
    assert plan.recipe.training.epochs > plan_training(recipe, large).recipe.training.epochs > 12
    assert plan.recipe.training.warp == Warp(turn=True, shift=0.7, gain=0.3)
    assert plan.recipe.settings["symmetries"] == plan.task.settings.symmetries == 8
    given = replace(recipe, settings={**recipe.settings, "symmetries": 1})
    assert plan_training(given, small).task.settings.symmetries == 1
    assert plan_training(replace(recipe, training=TrainingSettings(epochs=2)), small).task.settings.symmetries == 1
    same = Recipe.from_mapping(_parsed(to_toml(plan.recipe)))
    assert plan_training(same, small).identity == plan.identity
    assert plan_training(replace(recipe, training=TrainingSettings(epochs=2)), small).identity != plan.identity


def _parsed(text: str) -> dict:
    import tomllib

    return tomllib.loads(text)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match=r"epochs of 1 or more, or none \(-1\)"):
        TrainingSettings(epochs=-1)
    with pytest.raises(InputError, match=r"batch_size of 2 or more \(1\)"):
        TrainingSettings(batch_size=1)
    with pytest.raises(InputError, match=r"patience \(-2\) must be 0"):
        TrainingSettings(patience=-2)


def test_pace_says_what_was_chosen() -> None:
    text = pace(paced(OPEN, 300, side=100, turns=True), 300)
    assert text.startswith("300 training stamps: at most 154 epochs of 32 stamps per step, 1,540 steps; 231 of them")
    changes = "any angle, shifts up to 3 px, brightness (0.3); blended in pairs (0.2)"
    for words in ("stops after 77 epochs", "decay of 0.99", changes):
        assert words in text
    assert "weights averaged" not in pace(TrainingSettings(epochs=3, warp=Warp(gain=0.1)), 10)


# ---- not converged -----------------------------------------------------------------------------------------------


def classes() -> ClassifyTask:
    return ClassifyTask.from_settings({"bands": ["r"], "stamp_size": 24, "classes": ["a", "b"]})


def test_a_network_that_does_not_look_is_found_out() -> None:
    rng = torch.Generator().manual_seed(0)
    targets = (torch.rand(60, generator=rng) < 0.7).long()
    noise = 0.2 * torch.randn(60, 2, generator=rng)
    blind = blind_loss(classes(), noise, targets)
    assert blind is not None
    share = targets.double().mean().item()
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    assert blind[1] == pytest.approx(entropy, abs=1e-3)
    history = [{"validation_loss": 0.7}] * 12
    said = unconverged(history, "done", blind, 60)
    assert said.startswith("the training has not converged: on 60 validation objects the network is no better than one")
    seeing = noise + 3.0 * torch.nn.functional.one_hot(targets, 2)
    assert unconverged(history, "done", blind_loss(classes(), seeing, targets), 60) == ""


def test_an_answer_that_is_too_sure_is_not_called_blind() -> None:
    """Most objects right and all answers far too sure: the temperature, not the training, sees to that."""
    targets = torch.arange(80) % 2
    called = torch.where(torch.arange(80) % 7 == 0, 1 - targets, targets)
    outputs = 12.0 * torch.nn.functional.one_hot(called, 2)
    task = classes().calibrate(outputs, targets)
    assert unconverged([{"validation_loss": 2.0}] * 12, "done", blind_loss(task, outputs, targets), 80) == ""


def test_numbers_have_a_blind_answer_too() -> None:
    task = EllipticityTask.from_settings({"bands": ["r"], "stamp_size": 24, "psf": "none"})
    rng = torch.Generator().manual_seed(1)
    targets = 0.3 * torch.randn(100, 2, generator=rng)
    blind = blind_loss(task, 0.1 * torch.randn(100, task.outputs, generator=rng), targets)
    assert blind is not None
    assert blind[1] <= blind[0] + 0.05


@pytest.mark.parametrize(
    ("losses", "stopped", "falling"),
    [
        (np.linspace(0.7, 0.2, 20), "done", True),
        (0.2 + 0.5 * np.exp(-np.arange(20) / 2), "done", False),
        (np.linspace(0.7, 0.2, 20), "early", False),
        ([0.7, 0.6], "done", False),
        (0.3 + 0.2 * (-1.0) ** np.arange(20), "done", False),
    ],
)
def test_a_loss_that_still_falls_is_told(losses: np.ndarray, stopped: str, falling: bool) -> None:
    history = [{"validation_loss": float(loss)} for loss in losses]
    said = unconverged(history, stopped, None, 40)
    assert ("still fell" in said) == falling
    assert (said != "") == falling


def test_log_result_and_card_say_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ellipticity_stamps(str(tmp_path / "s.zarr"), 80)
    recipe = tmp_path / "r.toml"
    text = 'task = "ellipticity"\n[settings]\nstamp_size = 24\npsf = "none"\n[network_arguments]\nwidths = [4, 8]\n'
    recipe.write_text(text + "hidden = 8\n[training]\nepochs = 2\nlearning_rate = 1e-6\n")
    assert main(["train", str(recipe), "--data", data, "--out", str(tmp_path / "b")]) == 0
    assert "the training has not converged" in capsys.readouterr().out
    result = train(recipe, data=data, out=tmp_path / "b")
    assert result.skipped
    bundle = ModelBundle.load(tmp_path / "b")
    assert result.convergence == bundle.card.training["convergence"]
    log = (tmp_path / "b" / "log.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["convergence"] == result.convergence
    assert result.convergence in about_bundle(bundle, "b").notes
    assert bundle.card.training["pace"].startswith("6")
    assert bundle.card.training["settings"] == to_mapping(TrainingSettings(epochs=2, learning_rate=1e-6))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.shared_data
def test_the_default_recipe_learns_radio_galaxies(shared_data: Path, tmp_path: Path) -> None:
    """FRI and FRII among 424 stamps of FIRST; 36 steps, as 12 epochs were, end at chance. Two minutes."""
    from workflows.ingest import ingest

    with np.load(shared_data / "radio" / "mirabest_first100_dev.npz") as whole:
        kept = whole["sure"] & (whole["fr"] != "hybrid")
        np.savez(tmp_path / "sure.npz", **{name: whole[name][kept] for name in ("images", "fr", "object_id")})
    keys = "images=images,label=fr,object_id=object_id"
    data = ingest([str(tmp_path / "sure.npz")], npz_map=keys, layout="ncyx", bands="L", out=str(tmp_path / "s.zarr"))
    recipe = read_recipe("classify")
    settings = {**recipe.settings, "label": "label"}
    result = train(
        replace(recipe, settings=settings, split=replace(recipe.split, folds=5)), data=data.source, out=tmp_path / "b"
    )
    assert result.convergence == ""
    assert result.metrics["test"]["accuracy"] > 0.8
