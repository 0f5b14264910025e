"""One sky in several units gives one catalog: pixels are brought to the unit that a network was trained in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts import Cutouts, DeviceTile, from_stamps
from astroml_plugin.inference import run_unit
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.sources.survey import Survey
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.input_unit import trained_unit, zero_point_of
from astroml_plugin.training import card
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.measure_labelled import columns
from astroml_plugin.training.plan import plan_training
from astroml_plugin.training.recipe import Recipe
from astroml_plugin.training.splits import SplitSettings
from tests import universe
from workflows.cli import main
from workflows.infer import plan
from workflows.ingest import ingest

BANDS = ("g", "r", "i")
NJY = (31.4, 31.4, 31.4)


def stamps(count: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Round galaxies in g, r and i, some with a blue arc, in nJy; (n, 3, 64, 64), and their variance."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64] - 32.0
    r = np.hypot(x, y)
    body = np.exp(-r / 4.0) * np.reshape([20, 60, 90], (3, 1, 1))
    arc = np.exp(-0.5 * ((r - 7) / 1.2) ** 2) * (np.cos(np.arctan2(y, x)) > 0.3) * np.reshape([25, 20, 20], (3, 1, 1))
    noise = np.reshape([1.4, 1.3, 2.4], (3, 1, 1)).astype(np.float32)
    image = body + arc * (np.arange(count) % 2)[:, None, None, None] * rng.uniform(0.5, 1, (count, 1, 1, 1))
    image = image * rng.uniform(0.5, 2, (count, 1, 1, 1)) + rng.normal(size=(count, 3, 64, 64)) * noise
    return image.astype(np.float32), np.broadcast_to(noise**2, image.shape).astype(np.float32)


def in_unit(values: np.ndarray, zero_points: Sequence[float], power: int = 1) -> np.ndarray:
    """Pixels of nJy (n, 3, h, w) as a survey of these zero points has them."""
    factor = 10 ** (-0.4 * (31.4 - np.reshape(zero_points, (3, 1, 1))))
    return (values * factor**power).astype(np.float32)


def stored(url: str, image: np.ndarray, variance: np.ndarray, zero_points: Sequence[float | None] = NJY) -> str:
    store = Stamps.create(
        url, bands=BANDS, size=(64, 64), block=64, pixel_scale=0.2, variance=True, zero_points=tuple(zero_points)
    )
    index = store.reserve(1)
    checksum = store.write_block(index, image, variance)
    names = pa.array(["lens", "other"] * len(image)).slice(0, len(image))
    store.commit_objects(index, pa.table({"object_id": np.arange(len(image)), "class": names}), checksum)
    return url


def rows(source: str, out: Path, bundle: str = "lens", **options: object) -> pa.Table:
    """The catalog of a source, by object."""
    for unit in plan(source, bundle=bundle, out=str(out), device="cpu", **options):
        run_unit(unit)
    parts = sorted((out / "parts").rglob("*.parquet"))
    return pa.concat_tables([pq.read_table(part) for part in parts]).sort_by("object_id")


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    folder = tmp_path_factory.mktemp("njy")
    return rows(stored(str(folder / "s.zarr"), *stamps()), folder / "catalog")


@pytest.mark.parametrize("zero_points", [(27.0,) * 3, (25.0,) * 3, (27.0, 31.4, 22.5)])
def test_stamps_of_any_known_unit_give_the_same_probabilities(
    right: pa.Table, tmp_path: Path, zero_points: tuple[float, ...]
) -> None:
    image, variance = stamps()
    given = in_unit(image, zero_points), in_unit(variance, zero_points, 2)
    assert np.ptp(right["p_lens"].to_numpy()) > 0.1  # that the unit matters is tested below
    found = rows(stored(str(tmp_path / "known.zarr"), *given, zero_points), tmp_path / "known")
    bare = stored(str(tmp_path / "bare.zarr"), *given, ())
    with pytest.raises(
        InputError, match=r"takes pixels in nJy and band g, r, i of the source has no zero point.*--zero"
    ):
        rows(bare, tmp_path / "refused")
    stated = rows(bare, tmp_path / "stated", zero_point=zero_points)
    for table in (found, stated):
        np.testing.assert_allclose(table["p_lens"].to_numpy(), right["p_lens"].to_numpy(), atol=1e-4)
        assert table["label"].equals(right["label"])
        assert table["flags"].to_pylist() == right["flags"].to_pylist()


def test_the_command_line_states_a_zero_point(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, variance = stamps(4)
    bare = stored(str(tmp_path / "bare.zarr"), image, variance, ())
    assert main(["infer", bare, "--bundle", "lens", "--out", str(tmp_path / "c")]) == 2
    assert "has no zero point" in capsys.readouterr().err
    assert (
        main(["infer", bare, "--bundle", "lens", "--out", str(tmp_path / "c"), "--zero-point", "27,27", "--dry-run"])
        == 2
    )
    assert "2 zero points for the bands g, r, i" in capsys.readouterr().err
    assert (
        main(["infer", bare, "--bundle", "lens", "--out", str(tmp_path / "c"), "--zero-point", "31.4", "--dry-run"])
        == 0
    )


def test_tiles_of_several_units_in_one_survey_give_one_catalog(tmp_path: Path) -> None:
    """The same sky three times: in nJy, in counts, and with a band whose unit nobody knows."""
    image, _ = stamps(9)
    whole = image.reshape(3, 3, 3, 64, 64).transpose(2, 0, 3, 1, 4).reshape(3, 192, 192)
    source = str(tmp_path / "survey.zarr")
    units = {"njy": NJY, "counts": (27.0, 26.0, 25.0), "unknown": (27.0, None, 25.0)}
    for number, (name, zero_points) in enumerate(units.items()):
        known = [27.0 if zero is None else zero for zero in zero_points]

        def paint(pixels: np.ndarray, variance: np.ndarray, mask: np.ndarray, known: list[float] = known) -> None:
            pixels[:] = in_unit(whole, known)

        settings = {"shape": (192, 192), "tile_size": 256, "halo": 32, "bands": BANDS, "variance": False}
        universe.make_survey(source, name=name, change=paint, dec=10.0 * number, zero_points=zero_points, **settings)
    assert Survey.open(source).zero_points == NJY
    y, x = (np.tile(axis.ravel() * 64 + 32.0, 3) for axis in np.mgrid[:3, :3])
    objects = pa.table({"object_id": np.arange(27), "image": np.repeat(list(units), 9), "x": x, "y": y})
    found = rows(source, tmp_path / "c", objects=objects)
    probability = [found["p_lens"].slice(start, 9).to_numpy() for start in (0, 9)]
    np.testing.assert_allclose(probability[1], probability[0], atol=1e-4)
    assert np.ptp(probability[0]) > 0.05
    flags = found["flags"].to_numpy()
    assert not np.any(flags[:18] & int(ObjectFlag.OUT_OF_DOMAIN))
    assert np.all(flags[18:] & int(ObjectFlag.OUT_OF_DOMAIN))
    for name in ("p_lens", "p_other", "label"):
        assert found[name].slice(18).null_count == 9


def test_detection_weights_several_bands_in_one_unit(tmp_path: Path) -> None:
    """Counts of two cameras in one survey: weights by inverse variance alone would see one band only."""
    settings = {"shape": (160, 240), "tile_size": 552, "halo": 156, "bands": ("g", "r")}
    found = {}
    for name, zero_points in (("njy", (31.4, 31.4)), ("counts", (27.0, 22.5)), ("unknown", (None, 22.5))):
        factor = [10 ** (-0.4 * (31.4 - (zero or 27.0))) for zero in zero_points]

        def change(image: np.ndarray, variance: np.ndarray, mask: np.ndarray, factor: list[float] = factor) -> None:
            image *= np.reshape(factor, (2, 1, 1)).astype(np.float32)
            variance *= np.square(np.reshape(factor, (2, 1, 1))).astype(np.float32)

        source = str(tmp_path / f"{name}.zarr")
        universe.make_survey(source, change=change, zero_points=zero_points, **settings)
        found[name] = rows(source, tmp_path / name, "segmentation")
    right, counts, unknown = found.values()
    assert right.num_rows > 10
    assert counts["object_id"].equals(right["object_id"])
    for column in ("flux_total_g", "flux_iso_r", "flux_aper_g_err"):
        np.testing.assert_allclose(counts[column].to_numpy(), right[column].to_numpy(), rtol=2e-3)
    assert unknown["flux_total_g"].null_count == unknown.num_rows > unknown["flux_total_r"].null_count


def test_a_scale_of_one_changes_no_bit() -> None:
    image, variance = stamps(3)
    given = from_stamps(image, variance, None, bands=BANDS, zero_points=NJY)
    assert given.in_unit(31.4) is given
    tile = DeviceTile(torch.from_numpy(image[0]), None, None, None, BANDS, zero_points=NJY)
    assert tile.in_unit(31.4) is tile
    there = given.in_unit(27.0)
    np.testing.assert_allclose(there.image, in_unit(image, (27.0,) * 3), rtol=1e-6)
    np.testing.assert_allclose(there.variance, in_unit(variance, (27.0,) * 3, 2), rtol=1e-6)
    assert there.in_unit(27.0) is there


def test_batches_of_several_sources_keep_the_unit_of_each(tmp_path: Path) -> None:
    """Training, evaluation and comparison read several sources at once."""
    image, variance = stamps(6)
    other = (27.0, 26.0, 25.0)
    urls = [
        stored(str(tmp_path / "a.zarr"), image, variance),
        stored(str(tmp_path / "b.zarr"), in_unit(image, other), in_unit(variance, other, 2), other),
    ]
    data = LabelledStamps(urls)
    parts = [data.read(block, np.arange(12), ("i", "g")) for block in data.blocks]
    both = Cutouts.concatenate(parts).take(torch.tensor([7, 1])).in_unit(31.4)
    np.testing.assert_allclose(both.image, image[[1, 1]][:, [2, 0]], rtol=1e-5)
    assert data.sample(np.arange(12), 12, 0).zero_points.tolist() == [list(NJY)] * 6 + [list(other)] * 6


def test_training_takes_the_unit_from_its_data(tmp_path: Path) -> None:
    image, variance = stamps(16)
    known = stored(str(tmp_path / "a.zarr"), image, variance)
    bare = stored(str(tmp_path / "b.zarr"), image, variance, ())
    counts = (27.0, 26.0, 25.0)
    other = stored(str(tmp_path / "c.zarr"), in_unit(image, counts), in_unit(variance, counts, 2), counts)

    def planned(sources: list[str], **settings: object) -> Task:
        values = {"classes": ["lens", "other"], "label": "class", "stamp_size": 64, **settings}
        recipe = Recipe(task="classify", network="strided_cnn", settings=values, split=SplitSettings((0.5, 0.25, 0.25)))
        return plan_training(recipe, LabelledStamps(sources)).task

    alike = stored(
        str(tmp_path / "d.zarr"), in_unit(image, (27.0,) * 3), in_unit(variance, (27.0,) * 3, 2), (27.0,) * 3
    )
    one, both = planned([known]), planned([known, other])
    assert planned([alike]).input_unit == "AB 27.0"
    assert planned([alike, known]).input_unit == "nJy"
    assert one.input_unit == both.input_unit == planned([other]).input_unit == "nJy"
    np.testing.assert_allclose(
        planned([other]).settings.normalisation.scales, one.settings.normalisation.scales, rtol=1e-4
    )
    assert planned([bare]).input_unit == "uncalibrated"
    assert planned([bare], normalisation={"unit": "noise"}).input_unit == "any"
    assert planned([known], input_unit="AB 27.0").input_unit == "AB 27.0"
    with pytest.raises(InputError, match="3 of 6 zero points of the training data"):
        planned([known, bare])
    assert LabelledStamps([known]).digest != LabelledStamps([bare]).digest


def test_a_model_of_unknown_unit_meets_no_calibrated_source_unasked(tmp_path: Path) -> None:
    image, variance = stamps(4)
    known = stored(str(tmp_path / "a.zarr"), image, variance)
    bare = stored(str(tmp_path / "b.zarr"), image, variance, ())
    scales = {"unit": "scale", "scales": [4.0, 4.0, 8.0]}
    model = universe.make_bundle(str(tmp_path / "m"), bands=BANDS, size=64, normalisation=scales)
    assert rows(bare, tmp_path / "bare", model).num_rows == 4
    with pytest.raises(
        InputError, match=r"trained on stamps without a zero point, and the source has 31.4.*--input-unit"
    ):
        rows(known, tmp_path / "c", model)
    card.main([model, "--input-unit", "nJy"])
    signed = rows(known, tmp_path / "signed", model)
    assert signed["p_star"].equals(rows(bare, tmp_path / "stated", model, zero_point=31.4)["p_star"])
    with pytest.raises(InputError, match="input_unit 'Jy' is none of"):
        card.main([model, "--input-unit", "Jy"])


def test_units_by_name() -> None:
    assert [zero_point_of(unit) for unit in ("nJy", "AB 27.5", "any", "picture", "")] == [31.4, 27.5, None, None, None]
    with pytest.raises(InputError, match="input_unit 'mJy' is none of"):
        zero_point_of("mJy")
    assert trained_unit(False, "uint8", [[None]]) == "picture"
    assert zero_point_of(trained_unit(False, "float32", [[26.513]])) == 26.513
    with pytest.raises(InputError, match="1 of 2 zero points of the training data"):
        trained_unit(False, "float32", [[27.0, None]])


SCALES = {"lens": False, "morphology": False, "anomaly": True, "ellipticity": True, "segmentation": True}
"""Shipped bundle -> whether a factor on its pixels (one per band) leaves its output as it is."""


def outputs(task: Task, model: ModelBundle, factor: float) -> dict[str, np.ndarray]:
    """Columns, or maps, of a bundle on the same stamps times a factor that differs between bands."""
    image, variance = (item[:, : len(task.bands)] for item in stamps(8))
    factors = factor * np.reshape([1.0, 2.0, 0.5][: len(task.bands)], (-1, 1, 1)).astype(np.float32)
    size = 25
    psf = np.exp(-0.5 * (np.hypot(*(np.mgrid[:size, :size] - 12)) / 1.6) ** 2).astype(np.float32)
    kernel = np.broadcast_to(psf, (8, len(task.bands), size, size)) if task.settings.psf != "none" else None
    given = from_stamps(
        *(image * factors, variance * factors**2, kernel),
        bands=task.bands,
        pixel_scale=0.2,
        zero_points=NJY[: len(task.bands)],
    )
    if model.name == "segmentation":
        with torch.inference_mode():
            inputs, _ = task.prepare(given)
            return {"maps": model.network()(*inputs).numpy()}
    found = columns(task, model.network(), given)
    return {name: values for name, values in found.items() if values.dtype.kind == "f"}


@pytest.mark.parametrize("name", sorted(SCALES))
def test_shipped_cards_say_whether_a_scale_matters(name: str) -> None:
    model = ModelBundle.load(name)
    task = model.task()
    assert task.settings.input_unit == {"lens": "nJy", "morphology": "picture"}.get(name, "any")
    if task.settings.dtype == "uint8":
        task = task.with_settings(any_dtype=True)
    plain = outputs(task, model, 1.0)
    same = []
    for factor in (0.1, 10.0):
        other = outputs(task, model, factor)
        same += [np.allclose(other[column], plain[column], rtol=2e-3, atol=2e-3, equal_nan=True) for column in plain]
    assert all(same) == SCALES[name]


def test_archives_and_pictures_keep_their_zero_points(tmp_path: Path) -> None:
    image, variance = stamps(5)
    each = np.linspace(25.0, 29.0, 5)
    np.savez(tmp_path / "one.npz", images=image, zero_point=27.0)
    np.savez(tmp_path / "bands.npz", images=image, zero_point=[27.0, 26.0, 25.0])
    own = 10 ** (-0.4 * (31.4 - each[:, None, None, None]))
    np.savez(tmp_path / "each.npz", images=image * own, variance=variance * own**2, zero_point=each)
    np.savez(tmp_path / "odd.npz", images=image, zero_point=np.zeros((2, 7)))
    np.savez(tmp_path / "none.npz", images=image)
    np.savez(tmp_path / "zero.npz", images=image, zero_point=0.0)
    np.savez(tmp_path / "sentinel.npz", images=image, zero_point=np.append(each[1:], 99.0))
    found = {}
    for name, options in (("one", {}), ("bands", {}), ("each", {}), ("none", {}), ("none", {"zero_point": 22.5})):
        out = str(tmp_path / f"{name}{len(options)}.zarr")
        ingest(str(tmp_path / f"{name}.npz"), out=out, bands="g,r,i", **options)
        found[name, len(options)] = Stamps.open(out).zero_points
    assert list(found.values()) == [(27.0,) * 3, (27.0, 26.0, 25.0), NJY, (None,) * 3, (22.5,) * 3]
    again = Stamps.open(str(tmp_path / "each0.zarr")).read_block(0)
    np.testing.assert_allclose(again[0], image, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(again[1], variance, rtol=1e-4)
    for name, options, match in (
        ("odd", {}, "must hold AB magnitudes"),
        ("none", {"zero_point": (27.0, 26.0)}, "2 zero points for the bands g, r, i"),
        ("none", {"zero_point": (99.0,)}, "ingest --zero-point: zero point 99 is no AB magnitude"),
        ("zero", {}, "zero point 0 is no AB magnitude .* take the array out"),
        ("sentinel", {}, "zero point 99 is no AB magnitude .* write NaN"),
    ):
        with pytest.raises(InputError, match=match):
            ingest(str(tmp_path / f"{name}.npz"), out=str(tmp_path / "x.zarr"), bands="g,r,i", **options)
    with pytest.raises(InputError, match="zero points"):
        ingest(str(tmp_path / "none.npz"), out=str(tmp_path / "one0.zarr"), bands="g,r,i")


def test_drawn_example_stamps_are_in_the_unit_of_the_input() -> None:
    model = ModelBundle.load("lens")
    task = model.task()
    (calibrated,) = task.example_inputs()
    (plain,) = task.with_settings(input_unit="uncalibrated").example_inputs()
    assert torch.equal(calibrated, plain)
    assert replace(task.settings, input_unit="AB 27") != task.settings
