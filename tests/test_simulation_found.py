"""Kinds of detections on simulated skies: true objects, artefacts, and what is left out since nobody can say."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from astroml_plugin.core.errors import InputError
from astroml_plugin.simulation.found import kinds_of, labelled_detections

NAN = float("nan")
OBJECTS: tuple[tuple[Any, ...], ...] = (
    # id, class, x, y, flux (counts of 30 mag), sersic_n, half_light_radius, e1, kind
    (10, "star", 50.0, 50.0, 1000.0, NAN, NAN, NAN, "star"),
    (11, "spheroid", 100.0, 50.0, 1000.0, 4.0, 0.5, 0.1, "early"),
    (12, "spheroid", 150.0, 50.0, 1000.0, 4.0, 0.5, 0.7, None),
    (13, "spheroid", 200.0, 50.0, 1000.0, 2.2, 0.5, 0.1, None),
    (14, "disk", 50.0, 100.0, 1000.0, 1.0, 2.0, 0.2, "late"),
    (15, "disk", 150.0, 100.0, 1000.0, 1.0, 0.5, 0.6, "edge_on"),
    (16, "irregular", 200.0, 100.0, 1000.0, 1.0, 0.5, NAN, "irregular"),
    (17, "real", 50.0, 150.0, 1000.0, NAN, 0.5, NAN, None),
    (18, "star", 100.0, 150.0, 5.0, NAN, NAN, NAN, "star"),
)


def _truth() -> pa.Table:
    names = ("object_id", "class", "x", "y", "flux", "sersic_n", "half_light_radius", "e1")
    columns = {name: [row[place] for row in OBJECTS] for place, name in enumerate(names)}
    columns["mag"] = (30.0 - 2.5 * np.log10(columns.pop("flux"))).tolist()
    return pa.table({**columns, "e2": [0.0 if row[7] == row[7] else NAN for row in OBJECTS], "snr": [50.0] * 9})


def _label(found: Any, truth: Any = None, **options: Any) -> pa.Table:
    return labelled_detections(found, _truth() if truth is None else truth, **{"shape": (300, 300), **options})


def _found(*rows: tuple[float, float, float]) -> pa.Table:
    """Detections of x, y and flux in counts of 30 mag; the catalog's are nJy."""
    x, y, flux = (np.array(values, float) for values in zip(*rows))
    return pa.table({"object_id": np.arange(len(x)), "x": x, "y": y, "flux": flux * 10 ** (0.4 * 1.4)})


def _labelled(*rows: tuple[float, float, float]) -> list[tuple[int, str, int | None]]:
    table = _label(_found(*rows))
    assert all(np.isnan(snr) == (kind == "artefact") for snr, kind in zip(*_lists(table, "snr", "kind")))
    return list(zip(*_lists(table, "object_id", "kind", "true_id")))  # type: ignore[arg-type]


def _lists(table: pa.Table, *names: str) -> list[list[Any]]:
    return [table[name].to_pylist() for name in names]


def test_true_objects_have_the_kind_of_their_profile() -> None:
    assert kinds_of(_truth()).tolist() == [row[-1] for row in OBJECTS]


def test_a_detection_is_the_object_that_gave_its_light() -> None:
    found = _labelled((50.5, 51.0, 900.0), (100.0, 49.0, 1500.0), (150.0, 50.0, 1000.0), (150.0, 101.0, 1000.0))
    assert found == [(0, "star", 10), (1, "early", 11), (3, "edge_on", 15)]


def test_light_of_nothing_is_an_artefact() -> None:
    """An empty place, a faint star under bright light, light of a negative sum; and everything where nothing is."""
    found = _labelled((230.0, 230.0, 100.0), (100.0, 150.0, 4000.0), (45.0, 200.0, -3.0))
    assert found == [(0, "artefact", None), (1, "artefact", None), (2, "artefact", None)]
    empty = _label(_found((55.0, 55.0, 1.0)), _truth().slice(0, 0))
    assert empty["kind"].to_pylist() == ["artefact"]


def test_pieces_and_blends_are_left_out() -> None:
    """Near a star, within 2.5 half-light radii (25 px) of a galaxy, brighter than its object by far."""
    assert _labelled((54.5, 50.0, 300.0), (70.0, 100.0, 300.0), (50.0, 50.0, 3000.0)) == []
    assert _labelled((80.0, 100.0, 300.0)) == [(0, "artefact", None)]


def test_what_cannot_be_told_is_left_out() -> None:
    """No flux, a negative one on a star, a place near the edge; another band than that of the flux is asked for."""
    assert _labelled((50.0, 50.0, NAN), (50.0, 50.0, -5.0), (20.0, 230.0, 100.0), (230.0, 262.0, 100.0)) == []
    truth = _truth().append_column("mag_r", _truth()["mag"]).append_column("mag_g", pa.array([40.0] * 9))
    assert _label(_found((50.0, 50.0, 1000.0)), truth)["kind"].to_pylist() == ["star"]
    assert _label(_found((50.0, 50.0, 1000.0)), truth, band="g")["kind"].to_pylist() == ["artefact"]
    with pytest.raises(InputError, match="mag_i"):
        _label(_found((50.0, 50.0, 1000.0)), truth, band="i")


def test_images_keep_their_own_truth() -> None:
    truth = _truth().append_column("image", pa.array(["a"] * 8 + ["b"]))
    found = _found((50.0, 50.0, 1000.0), (50.0, 50.0, 1000.0)).append_column("image", pa.array(["a", "b"]))
    assert _label(found, truth)["kind"].to_pylist() == ["star", "artefact"]
    with pytest.raises(InputError, match="image c"):
        _label(found.set_column(4, "image", pa.array(["a", "c"])), truth)
    with pytest.raises(InputError, match="column image"):
        _label(found.drop_columns(["image"]), truth)


def test_tables_of_other_libraries_are_read() -> None:
    pandas = _found((50.5, 51.0, 900.0)).to_pandas()
    assert _label(pandas, _truth().to_pandas())["true_id"].to_pylist() == [10]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found, truth: (found.drop_columns(["flux"]), truth), "flux"),
        (lambda found, truth: (found, truth.drop_columns(["class"])), "class"),
        (lambda found, truth: (found, truth.drop_columns(["object_id"])), "object_id"),
        (lambda found, truth: (found, truth.set_column(0, "object_id", pa.array([None] * 9, pa.int64()))), "whole"),
        (lambda found, truth: (found.set_column(3, "flux", pa.array(["1"])), truth), "no numbers"),
        (lambda found, truth: (found.append_column("snr", found["flux"]), truth), "already"),
        (lambda found, truth: (found, truth.set_column(2, "x", pa.array([NAN] * 9))), "no number"),
    ],
)
def test_other_tables_are_refused(change: Any, said: str) -> None:
    found, truth = change(_found((50.0, 50.0, 1.0)), _truth())
    with pytest.raises(InputError, match=said):
        _label(found, truth)


def test_another_unit_or_scale_is_refused() -> None:
    found = _found((50.0, 50.0, 1.0))
    other = found.cast(pa.schema([*list(found.schema)[:3], pa.field("flux", pa.float64(), metadata={"unit": "uJy"})]))
    with pytest.raises(InputError, match="uJy"):
        _label(other)
    with pytest.raises(InputError, match="pixel scale"):
        _label(found, pixel_scale=0.0)


@pytest.mark.slow
def test_a_sky_gives_stamps_of_every_kind(tmp_path: Path) -> None:
    """Found, labelled, cut: in one band and in three; stars of the sky are most probably called stars."""
    pytest.importorskip("galsim")
    from astroml_plugin.sources.stamps import Stamps
    from bundles.detected import DetectedSet

    sources = [Stamps.open(url) for url in replace(DetectedSet(seed=955, skies=2), side=768).made(str(tmp_path))]
    assert [source.bands for source in sources] == [("g", "r", "i"), ("r",)]
    kinds = [Counter(source.labels(["kind"])["kind"].to_pylist()) for source in sources]
    assert all(one["star"] > 5 and one["artefact"] > 5 and one["late"] + one["early"] > 5 for one in kinds)
    assert all(one["artefact"] <= 0.45 * one.total() for one in kinds)
