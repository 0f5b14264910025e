"""Catalogs whose positions are off, end to end: the numbers are those of the right positions, and the run says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import spearmanr

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts import from_stamps, recentred
from astroml_plugin.inference.centres import median_offsets, warning
from astroml_plugin.simulation import make_design, postage, preset
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.measure_labelled import columns
from tests import universe
from workflows.infer import ObjectTable, infer
from workflows.ingest import ingest
from workflows.query import query

torch.set_num_threads(1)
MARGIN = 3


def galaxies(name: str, count: int, size: int, **changes: Any) -> Any:
    """Simulated stamps with `MARGIN` pixels more on every side."""
    pytest.importorskip("galsim")
    made: Any = preset(name)
    return replace(made, count=count, block=count, seed=931, size=size + 2 * MARGIN, **changes).make(0)


def moved(pixels: np.ndarray, x: int, y: int) -> np.ndarray:
    """Their inner parts, in which the light lies so many pixels farther along x and y."""
    side = pixels.shape[-1]
    return np.ascontiguousarray(pixels[..., MARGIN - y : side - MARGIN - y, MARGIN - x : side - MARGIN - x])


def grid_of_blobs(image: np.ndarray, spread: np.ndarray, marks: np.ndarray) -> None:
    """Elongated blobs 60 pixels apart, and noise of 1."""
    rng = np.random.default_rng(4)
    image[:] = rng.normal(0, 1, image.shape)
    rows, columns = np.mgrid[: image.shape[1], : image.shape[2]]
    for x, y in places(image.shape[2], image.shape[1]).T:
        turned = np.add.outer(rows[:, 0] - y, columns[0] - x), np.subtract.outer(rows[:, 0] - y, columns[0] - x)
        image += 40 * np.exp(-(turned[0] ** 2) / 40 - turned[1] ** 2 / 20).astype(np.float32)


def places(width: int, height: int) -> np.ndarray:
    """(2, n) x and y of the blobs, none at the middle of a pixel."""
    grid = np.mgrid[40 : width - 30 : 60, 40 : height - 30 : 60].reshape(2, -1)
    return grid + np.random.default_rng(5).uniform(-0.45, 0.45, grid.shape)


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("off") / "sky.zarr")
    universe.make_survey(url, bands=("g", "r"), shape=(420, 420), tile_size=300, halo=32, change=grid_of_blobs)
    return url


def measured(sky: str, out: Path, client: object, shift: float, **options: Any) -> tuple[Any, Any]:
    x, y = places(420, 420) + shift
    table = pa.table({"object_id": np.arange(len(x)), "x": x, "y": y})
    done = infer(
        sky,
        bundle="ellipticity",
        objects=ObjectTable(table=table, frame="pixel"),
        out=str(out),
        client=client,
        **options,
    )
    return done, query(str(out), "SELECT x, e1, e2, flags FROM catalog ORDER BY object_id").to_pandas()


def test_a_table_that_counts_from_one_gives_the_same_shapes_and_a_warning(
    sky: str, tmp_path: Path, client: object
) -> None:
    right, truth = measured(sky, tmp_path / "right", client, 0.0)
    off, found = measured(sky, tmp_path / "off", client, 1.0)
    assert right.warning == ""
    assert "by (-1.0, -1.0) px" in off.warning
    assert "--pixel-origin 1" in off.warning
    for name in ("e1", "e2", "flags"):
        same = np.abs(truth[name].to_numpy() - found[name].to_numpy()) < 1e-6
        assert same.mean() > 0.95  # a centre half-way between pixels may be moved to either
    assert np.allclose(found["x"].to_numpy(), truth["x"].to_numpy() + 1)  # as given
    _, kept = measured(sky, tmp_path / "kept", client, 1.0, options={"recentre": False})
    assert np.mean(kept["flags"].to_numpy() & int(ObjectFlag.OUT_OF_DOMAIN) > 0) > 0.7


def test_stamps_that_are_off_give_the_shapes_of_centred_ones() -> None:
    made = galaxies("field-fixed", 256, 48, snr=(30.0, 100.0))
    model = ModelBundle.load("ellipticity")
    task, network = model.task(), model.network(fused=True)

    def shapes(x: int, y: int) -> tuple[np.ndarray, np.ndarray]:
        stamps = from_stamps(moved(made.image, x, y), moved(made.variance, x, y), made.psf, bands=("r",))
        found = columns(task, network, recentred(stamps, task.settings.centring)[0])
        return np.stack([found["e1"], found["e2"]], axis=1), found["flags"] == 0

    centred, good = shapes(0, 0)
    for x, y in ((1, 1), (1, 0), (-2, 2)):
        found, fine = shapes(x, y)
        assert fine.sum() > 0.98 * good.sum()
        assert np.abs((found - centred)[good & fine].mean(0)).max() < 5e-4  # without centring 2.8e-2 in e2 at (1, 1)


def test_stored_stamps_that_are_off_say_so(tmp_path: Path, client: object) -> None:
    made = galaxies("field-fixed", 64, 48, snr=(60.0, 100.0))
    given = {"images": moved(made.image, 1, 0), "variance": moved(made.variance, 1, 0), "psf": made.psf}
    np.savez(tmp_path / "s.npz", **given, bands=np.array(["r"]), pixel_scale=0.2)
    ingest(str(tmp_path / "s.npz"), out=str(tmp_path / "s.zarr"))
    done = infer(str(tmp_path / "s.zarr"), bundle="ellipticity", out=str(tmp_path / "cat"), client=client)
    assert "pixel side // 2" in done.warning
    assert "(+1.0, " in done.warning


@pytest.mark.slow
def test_odd_objects_rank_alike_one_pixel_off() -> None:
    made = galaxies("anomalies", 128, 64)
    model = ModelBundle.load("anomaly")
    task, network = model.task(), model.network(fused=True)

    def scores(x: int, y: int) -> np.ndarray:
        stamps = from_stamps(moved(made.image, x, y), moved(made.variance, x, y), None, bands=("g", "r", "i"))
        return columns(task, network, recentred(stamps, task.settings.centring)[0])["anomaly_score"]

    centred = scores(0, 0)
    for x, y in ((1, 0), (1, 1)):
        assert spearmanr(centred, scores(x, y))[0] > 0.95  # without centring 0.59 and 0.35


@pytest.mark.parametrize(
    ("bundle", "simulated", "score"), [("anomaly", "anomalies", "anomaly_score"), ("lens", "lenses", "p_lens")]
)
def test_the_unit_of_a_band_changes_no_score(bundle: str, simulated: str, score: str) -> None:
    made = galaxies(simulated, 48, 64)
    model = ModelBundle.load(bundle)
    task, network = model.task(), model.network(fused=True)

    def measured_in(zero_points: tuple[float, ...], shift: int) -> dict[str, np.ndarray]:
        factor = (10 ** (0.4 * (np.array(zero_points) - 31.4))).astype(np.float32)[:, None, None]
        image, variance = moved(made.image, shift, shift) * factor, moved(made.variance, shift, shift) * factor**2
        stamps = from_stamps(image, variance, None, bands=("g", "r", "i"), zero_points=zero_points)
        found: dict[str, np.ndarray] = columns(task, network, recentred(stamps, task.settings.centring)[0])
        return found

    for shift in (0, 1):
        right = measured_in((31.4, 31.4, 31.4), shift)
        for zero_points in ((27.0, 25.0, 22.5), (28.9, 33.9, 31.4)):
            other = measured_in(zero_points, shift)
            assert np.abs(other[score] - right[score]).max() < 1e-5
            assert np.array_equal(other["flags"], right["flags"])


def pairs(image: np.ndarray, spread: np.ndarray, marks: np.ndarray) -> None:
    """Two blobs of equal light, 4 pixels apart, about each place."""
    rng = np.random.default_rng(4)
    image[:] = rng.normal(0, 1, image.shape)
    rows, columns = np.mgrid[: image.shape[1], : image.shape[2]]
    for x, y in paired(image.shape[2], image.shape[1]).T:
        image += 60 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 8).astype(np.float32)


def paired(width: int, height: int) -> np.ndarray:
    """(2, 2n) x and y of both blobs of each pair."""
    middle = places(width, height)
    angle = np.random.default_rng(6).uniform(0, np.pi, middle.shape[1])
    apart = 2 * np.stack([np.cos(angle), np.sin(angle)])
    return np.concatenate([middle - apart, middle + apart], axis=1)


def test_both_objects_of_a_blend_are_flagged(tmp_path: Path, client: object) -> None:
    url = str(tmp_path / "pairs.zarr")
    universe.make_survey(url, bands=("g", "r"), shape=(300, 300), tile_size=300, halo=32, change=pairs)
    x, y = paired(300, 300)
    table = pa.table({"object_id": np.arange(len(x)), "x": x, "y": y})
    objects = ObjectTable(table=table, frame="pixel")
    infer(url, bundle="ellipticity", objects=objects, out=str(tmp_path / "cat"), client=client)
    flags = query(str(tmp_path / "cat"), "SELECT flags FROM catalog").to_pandas()["flags"].to_numpy()
    assert len(flags) == len(x)
    assert np.all(flags & int(ObjectFlag.OUT_OF_DOMAIN) > 0)


@pytest.mark.slow
def test_stamps_whose_centre_lies_between_pixels_give_no_shear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stamps as GalSim draws them at an even size: c and m are those of centred ones (c2 was 6.4e-3, m1 -0.015)."""
    pytest.importorskip("galsim")
    model = ModelBundle.load("ellipticity")
    task, network = model.task(), model.network(fused=True)
    drawn = postage._Scene._main

    def shear(offset: float) -> np.ndarray:
        monkeypatch.setattr(
            postage._Scene, "_main", lambda self, objects, psf, shift: drawn(self, objects, psf, shift + offset)
        )
        found = []
        for seed in range(931, 943):
            changes = {"count": 512, "block": 512, "seed": seed, "design": make_design("shear")}
            made = replace(preset("field-varying"), **changes).make(0)
            stamps = from_stamps(made.image, made.variance, made.psf, bands=("r",))
            own = columns(task, network, recentred(stamps, task.settings.centring)[0])
            g = np.stack([made.table["g1"].to_numpy(), made.table["g2"].to_numpy()], axis=1)
            e, r = np.stack([own["e1"], own["e2"]], axis=1), np.stack([own["r11"], own["r22"]], axis=1)
            m = [(np.sign(g) * e).sum(0) / np.abs(g).sum(0) / r.mean(0) - 1]
            found.append(np.concatenate([*m, e.mean(0) / r.mean(0)]))
        return np.array(found)

    gap = shear(-0.5) - shear(0.0)
    mean, error = gap.mean(0), gap.std(0, ddof=1) / len(gap) ** 0.5
    assert np.all(np.abs(mean) < 4 * error + 5e-4), (mean, error)
    assert np.all(np.abs(mean[2:]) < 1e-3), (mean, error)


def test_medians_are_of_what_was_counted() -> None:
    counts = {"a x+10": 40, "a x-2": 30, "a y+0": 60, "a y+3": 10, "b x+0": 70, "b y+0": 70}
    offsets = median_offsets(counts)
    assert offsets["a"] == {"objects": 70, "x": 1.0, "y": 0.0}
    assert "(+1.0, +0.0) px in the median of 70 objects (a)" in warning(offsets, stamps=True)
    assert warning({"b": offsets["b"]}, stamps=False) == ""
    assert warning(median_offsets({"a x+10": 4, "a y+0": 4}), stamps=False) == ""


def test_a_bundle_that_knows_no_tolerance_cannot_be_asked_to_centre() -> None:
    task = ModelBundle.load("morphology").task()
    with pytest.raises(InputError, match="leave recentre away"):
        task.for_run(task.RunOptions(recentre=True))
    assert task.for_run(task.RunOptions()).settings == task.settings
