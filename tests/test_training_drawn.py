"""Stamps that a generator drew train beside observed ones, and nothing is ever judged on them or on what is behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.labels import generated
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.plan import plan_training
from astroml_plugin.training.recipe import Recipe
from astroml_plugin.training.splits import SplitSettings
from tests.test_generate import light, tiny
from tests.training_samples import write_stamps
from workflows.cli import main
from workflows.evaluate import evaluate
from workflows.generate import generate
from workflows.recipe import read_recipe
from workflows.train import train

torch.set_num_threads(1)
COUNT = 400


def classes() -> Recipe:
    """A recipe of two classes in the column `kind`."""
    recipe = read_recipe("classify")
    return replace(
        recipe,
        network="strided_cnn",
        settings={"label": "kind"},
        network_arguments={"widths": [4, 8], "hidden": 8},
        training=replace(recipe.training, epochs=1),
        typicality=replace(recipe.typicality, fit=False),
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A folder, observed stamps (8-bit) of two kinds, and stamps drawn from a generator of the first 150 of a kind."""
    folder = tmp_path_factory.mktemp("drawn")
    image = np.clip(light(COUNT) * 4, 0, 255).astype(np.uint8)
    kind = np.where(np.arange(COUNT) < 300, "a", "b")
    seen = write_stamps(str(folder / "seen.zarr"), image, {"kind": kind})
    rare = write_stamps(str(folder / "rare.zarr"), image[:150], {"kind": kind[:150]})
    maker = train(tiny(2), data=rare, out=str(folder / "maker")).bundle
    command = ["generate", maker, "--out", f"{folder}/made", "--count", "64", "--labels", "kind=a,vote=5"]
    assert main(command) == 0
    return folder, seen, f"{folder}/made/stamps.zarr"


def test_drawn_stamps_have_the_pixels_and_labels_of_the_observed(sources: tuple[Path, str, str]) -> None:
    made = Stamps.open(sources[2])
    assert made.dtype == np.uint8
    image = made.read_rows(np.arange(64))[0]
    assert 0 <= image.min() < 10 < image.max()
    labels = made.labels()
    assert set(labels["kind"].to_pylist()) == {"a"}
    assert set(labels["vote"].to_pylist()) == {5}
    assert generated(labels).all()
    with pytest.raises(InputError, match="generator of drawn stamps is not free"):
        generate(f"{sources[0]}/maker", out=f"{sources[0]}/no", count=2, labels={"generator": "me"})


@pytest.mark.parametrize(
    "settings",
    [
        SplitSettings((0.2, 0.2, 0.6)),
        SplitSettings(folds=4, fold=2),
        SplitSettings((0.5, 0.25, 0.25), limit=20),
        SplitSettings(column="side"),
        SplitSettings(by="sky"),
    ],
)
def test_no_division_puts_a_drawn_stamp_beyond_train(settings: SplitSettings, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image, size = rng.normal(size=(160, 1, 16, 16)).astype(np.float32), 80
    place = {"ra": rng.uniform(0, 360, size), "dec": rng.uniform(-60, 60, size)}
    side = np.array(["train", "validation", "test", "test"] * 20)
    seen = write_stamps(str(tmp_path / "seen.zarr"), image[:size], {"side": side, **place})
    made = write_stamps(str(tmp_path / "made.zarr"), image[size:], {"generator": ["maker 0123"] * size})
    data = LabelledStamps([seen, made])
    rows, alone = (one.split(settings, np.ones(one.labels.num_rows, bool)) for one in (data, LabelledStamps([seen])))
    drawn = np.arange(size, 2 * size)
    np.testing.assert_array_equal(rows["train"], np.concatenate([alone["train"], drawn]))
    for name in ("validation", "test"):
        np.testing.assert_array_equal(rows[name], alone[name])
    if settings.limit:
        assert len(rows["train"]) == settings.limit + size  # a limit counts labels that somebody gave
    some = np.ones(2 * size, bool)
    some[-8:] = False
    assert drawn[-1] not in data.split(settings, some)["train"]


def test_drawn_stamps_alone_are_refused(tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(40, 1, 16, 16)).astype(np.float32)
    made = write_stamps(str(tmp_path / "made.zarr"), image, {"generator": ["maker 0123"] * 40})
    with pytest.raises(InputError, match=r"all 40 stamps were drawn by a generator .* add observed or simulated"):
        LabelledStamps([made]).split(SplitSettings(), np.ones(40, bool))


def test_only_text_names_a_generator() -> None:
    assert generated(pa.table({"generator": ["x", None, ""]})).tolist() == [True, False, False]
    assert not generated(pa.table({"generator": [1, 2]})).any()
    assert not generated(pa.table({"generator": pa.nulls(2)})).any()
    assert not generated(pa.table({"kind": [1, 2]})).any()
    encoded = pa.table({"generator": pa.array(["x", None]).dictionary_encode()})
    assert generated(encoded).tolist() == [True, False]


def test_nothing_is_judged_on_what_the_generator_learned_from(sources: tuple[Path, str, str]) -> None:
    """A drawn stamp may be next to a copy of a stamp that the generator learned from: that is no test object then."""
    _, seen, made = sources
    with pytest.raises(
        InputError, match=r"objects were trained on by the generator of the drawn stamps.*leaks = 'drop'"
    ):
        plan_training(classes(), LabelledStamps([seen, made]))
    recipe = classes()
    split = replace(recipe.split, leaks="drop", fractions=(0.4, 0.3, 0.3))
    plan = plan_training(replace(recipe, split=split), LabelledStamps([seen, made]))
    judged = np.concatenate([plan.rows["validation"], plan.rows["test"]])
    maker = ModelBundle.load(f"{sources[0]}/maker").known_objects()
    assert maker is not None
    digests = plan.data.centre_digests(("r",))[judged]
    assert not np.isin(digests, maker.pixels).any()
    assert len(plan.rows["train"]) == 64 + np.sum(plan.rows["train"] < COUNT)
    assert len(plan.observed["train"]) == np.sum(plan.rows["train"] < COUNT)


def test_a_bundle_remembers_what_is_behind_its_drawn_stamps(sources: tuple[Path, str, str], tmp_path: Path) -> None:
    folder, seen, made = sources
    recipe = classes()
    recipe = replace(recipe, split=replace(recipe.split, leaks="drop", fractions=(0.4, 0.3, 0.3)))
    bundle = train(recipe, data=[seen, made], out=str(tmp_path / "bundle")).bundle
    known, maker = ModelBundle.load(bundle).known_objects(), ModelBundle.load(f"{folder}/maker").known_objects()
    assert known is not None
    assert maker is not None
    assert np.isin(maker.pixels, known.pixels).all()
    with pytest.raises(InputError, match="all 64 stamps were drawn by a generator"):
        evaluate(made, bundle=bundle, out=str(tmp_path / "no"))
    fresh = np.clip(light(40, seed=9) * 4, 0, 255).astype(np.uint8)
    labels = {"kind": np.repeat(["a", "b"], 20), "generator": [None] * 30 + ["maker 0123"] * 10}
    mixed = write_stamps(str(tmp_path / "mixed.zarr"), fresh, labels, block=40)
    found = evaluate(mixed, bundle=bundle, out=str(tmp_path / "report"))
    assert (found.objects, found.left_out) == (30, "left out 10 stamps that a generator drew")
