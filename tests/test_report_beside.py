"""Sections about what lies beside a catalog: groups, explanations, a map of vectors, and drift from a reference."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astroml_plugin.catalog import Catalog, Column
from astroml_plugin.core.errors import InputError
from astroml_plugin.evaluation.reference import Reference
from astroml_plugin.inference.detecting import LABEL
from astroml_plugin.reporting import html, interactive
from astroml_plugin.reporting.charts import Chart, Grid, Points
from astroml_plugin.reporting.options import ReportOptions
from astroml_plugin.reporting.pages import Note, Page, Pictures, Section, Table
from astroml_plugin.reporting.run import attributions, drift, latent
from astroml_plugin.reporting.run.sampling import Sampled
from astroml_plugin.reporting.run.subject import RunSubject
from astroml_plugin.reporting.subjects import page_of
from astroml_plugin.sky.coverage import moc_json
from astroml_plugin.tasks.segmentation.measurement import PARENT
from astroml_plugin.training.bundle import ModelBundle, shipped
from astroml_plugin.training.recipe import Recipe
from astroml_plugin.training.reference import reference_of
from tests import planted
from tests.ranked_catalogs import ranked_catalog, rows, stamps_and_catalog, with_column
from tests.test_report import made
from tests.training_samples import SIZE, write_stamps
from workflows.cluster import cluster
from workflows.explain import explain
from workflows.fit_reference import fit_reference
from workflows.infer import infer
from workflows.train import train


@pytest.fixture(autouse=True)
def errors_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """No section fails unseen."""
    monkeypatch.setenv("ASTROML_DEBUG", "1")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """A catalog of 120 stamps in three bands, with groups."""
    _, made = stamps_and_catalog(tmp_path_factory.mktemp("beside"), 120, colour=True)
    cluster(made.url, name="groups", clusters=3, bootstraps=3)
    return made


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Bundles that have learned a planted cause, by its name."""
    folder = tmp_path_factory.mktemp("marks")
    return {cause: planted.bundle(str(folder / cause), cause) for cause in ("band", "corner")}


def made_by(maker: Callable[[RunSubject], Any], url: str, **options: Any) -> Section:
    """One section alone."""
    with RunSubject.opened(url, ReportOptions(**options)) as subject:
        found = maker(subject)
    assert isinstance(found, Section)
    return found


def part(page: Page, title: str) -> Section:
    return next(section for section in page.sections if section.title == title)


def notes(section: Section) -> list[str]:
    return [block.text for block in section.blocks if isinstance(block, Note) and block.bad]


# ---- groups and the map ------------------------------------------------------------------------------------------


def test_groups_have_sizes_stability_and_stamps_of_their_medoids(catalog: Catalog) -> None:
    section = part(page_of(catalog.url), "Groups without labels")
    assert "3 clusters by kmeans from latent" in section.text
    assert "adjusted Rand index" in section.text
    table = next(block for block in section.blocks if isinstance(block, Table))
    assert sum(int(row[1]) for row in table.rows) == 120
    seen = next(block for block in section.blocks if isinstance(block, Pictures))
    assert [one.caption[0] for one in seen.pictures].count("cluster 0, medoid") == 1
    assert len(seen.pictures) == 18
    assert not notes(section)  # there is one tile only


def test_a_group_of_one_tile_is_doubted(tmp_path: Path) -> None:
    table = rows(300)
    values = np.where(np.arange(300) >= 270, 50.0, 0.0)  # of the last of three tiles
    catalog = ranked_catalog(tmp_path / "c", with_column(table, "size", values + table["size"].to_numpy()))
    cluster(catalog.url, clusters=2, features=("size",), bootstraps=0)
    (told,) = notes(part(page_of(catalog.url), "Groups without labels"))
    assert "100% of cluster 1 of clusters lies in im_2, which has 33% of all objects" in told


@pytest.mark.parametrize("method", ["pca", pytest.param("tsne", marks=pytest.mark.slow)])
def test_the_map_shows_a_stamp_for_each_point(catalog: Catalog, method: str) -> None:
    page = page_of(catalog.url, ReportOptions(map=method))
    section = part(page, "Map of the latent space")
    chart = next(block for block in section.blocks if isinstance(block, Chart))
    assert chart.title.endswith("coloured by cluster of groups")
    assert sum(len(series.x) for series in chart.series) == 120
    assert sorted(k for series in chart.series for k in series.pictures) == list(range(120))
    assert chart.sheet is not None
    assert chart.sheet.data.startswith(b"\xff\xd8")
    text = html.document(page)
    assert 'class="sheet" alt="" hidden' in text
    assert len(text) < 8e6


def test_the_map_is_coloured_by_any_column(catalog: Catalog) -> None:
    for colour, by_kind in (("size", False), ("cluster_distance", False), ("kind", True), ("medoid", True)):
        chart = made_by(latent.section, catalog.url, colour=colour).blocks[0]
        assert isinstance(chart, Chart)
        first = chart.series[0]
        assert isinstance(first, Points)
        assert (first.values is None) is by_kind
        json.dumps(interactive.figure(chart), allow_nan=False)
    for wish, words in (
        ({"colour": "nothing"}, "no column 'nothing'"),
        ({"colour": "latent"}, "neither numbers nor labels"),
        ({"map": "som"}, "--map som is unknown: choose pca, tsne, umap"),
    ):
        with pytest.raises(InputError, match=words):
            page_of(catalog.url, ReportOptions(**wish))


def test_a_catalog_without_vectors_or_groups_says_how_to_get_them(tmp_path: Path, marks: dict[str, str]) -> None:
    url = infer_planted(tmp_path, marks["band"], "band", 24)
    missing = {one.title: one.reason for one in page_of(url).missing}
    assert "`anomaly` gives one" in missing["Map of the latent space"]
    assert "`cluster CATALOG` makes them" in missing["Groups without labels"]
    assert "`explain CATALOG` makes them" in missing["Attributions"]
    assert "give a catalog to compare with by --reference" in missing["Drift"]


# ---- explanations ------------------------------------------------------------------------------------------------


def infer_planted(folder: Path, bundle: str, cause: str, count: int = 48) -> str:
    """A catalog of stamps with a planted cause, measured by a network that has learned it."""
    source = planted.store(str(folder / "stamps.zarr"), cause, count)
    infer(source, bundle=bundle, out=str(folder / "catalog"))
    return str(folder / "catalog")


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        pytest.param("corner", "lies in one ninth of the stamp, at high x and low y", marks=pytest.mark.slow),
        ("band", "of the attribution lies in band r"),
    ],
)
def test_a_planted_cause_is_named_on_the_page(tmp_path: Path, marks: dict[str, str], cause: str, words: str) -> None:
    url = infer_planted(tmp_path, marks[cause], cause)
    explain(url, name="why", top=12, by="p_marked", forwards=17)
    section = made_by(attributions.section, url)
    assert [note for note in notes(section) if words in note and note.startswith("why: ")]
    assert any(isinstance(block, Pictures) and block.wide for block in section.blocks)
    cells = next(block for block in section.blocks if isinstance(block, Chart) and "ninths" in block.title)
    grid = cells.series[0]
    assert isinstance(grid, Grid)
    assert "Nobody has judged" in section.text
    assert "watermark" in section.threshold
    explain(url, name="plain", top=4, by="p_marked", forwards=17, maps="none", faithfulness=4)
    section = made_by(attributions.section, url)
    (judged,) = [block for block in section.blocks if isinstance(block, Table) and "how faithful" in block.title]
    assert [len(row) for row in judged.rows] == [4] * 4
    assert "plain: how faithful it is, of 4 objects" in judged.title
    assert "It was made without maps." in section.text
    assert not any(isinstance(block, Note) and "No maps" in block.text for block in section.blocks)
    if cause == "corner":
        assert grid.values[0, 2] == np.max(grid.values)


# ---- drift -------------------------------------------------------------------------------------------------------


def sky(folder: Path, bundle: str, *, noise: float = 1.0, order: tuple[int, ...] = (0, 1, 2), seed: int = 0) -> str:
    """A catalog of 192 stamps in three blocks: objects of three bands, red and with unlike noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    light = np.exp(-0.5 * (x**2 + y**2) / 2.0**2)
    flux = rng.uniform(30, 60, (192, 1, 1, 1)) * np.array([0.5, 1.0, 2.0])[:, None, None]
    image = flux * light + noise * np.array([1.0, 1.5, 2.5])[:, None, None] * rng.normal(size=(192, 3, SIZE, SIZE))
    source = write_stamps(str(folder / "s.zarr"), image[:, order].astype(np.float32), {}, bands=planted.BANDS, block=64)
    url = str(folder / "catalog")
    infer(source, bundle=bundle, out=url)
    return url


def test_the_same_sky_again_is_not_reported_and_others_are(tmp_path: Path, marks: dict[str, str]) -> None:
    known = sky(tmp_path / "known", marks["band"], seed=1)
    for name, how, words in (
        ("same", {}, None),
        ("deeper", {"noise": 0.5}, "noise g"),
        ("swapped", {"order": (2, 1, 0)}, "colour g - i"),
    ):
        url = sky(tmp_path / name, marks["band"], seed=2, **how)
        section = made_by(drift.section, url, reference=known)
        told = " ".join(notes(section))
        if words is None:
            assert not told
            assert any("Nothing is reported" in block.text for block in section.blocks if isinstance(block, Note))
        else:
            assert words in told
        assert "Compared with the catalog known/catalog" in section.text
        grids = [block.title for block in section.blocks if isinstance(block, Chart)]
        assert [title.partition(":")[0] for title in grids][:3] == [f"Inputs of band {band}" for band in "gri"]
    with pytest.raises(InputError, match="no catalog"):
        page_of(url, ReportOptions(reference=str(tmp_path / "none")))


def test_ids_of_another_run_are_no_drift(tmp_path: Path) -> None:
    columns = [LABEL, Column(PARENT, "int64", "", "meta.id.parent"), Column("snr", "float64")]
    urls = []
    for name, first in (("a", 0), ("b", 10**15)):
        ids = np.arange(first, first + 300)
        numbers = {"object_id": ids, LABEL.name: (ids + first) % 2**31, PARENT: ids, "snr": np.linspace(1, 9, 300)}
        urls.append(made(tmp_path / name, columns, numbers, 300).url)
    section = made_by(drift.section, urls[1], reference=urls[0])
    assert not notes(section)
    assert any("Nothing is reported: 1 number" in block.text for block in section.blocks if isinstance(block, Note))


def test_a_bundle_keeps_what_its_training_looked_like(tmp_path: Path) -> None:
    source = planted.store(str(tmp_path / "stamps.zarr"), "band", 192, 64)
    told = {"task": "classify", "network": "strided_cnn", "network_arguments": {"widths": [8], "hidden": 8}}
    settings = {"classes": ["plain", "marked"], "label": "kind", "names": {"0": "plain", "1": "marked"}}
    settings |= {"bands": list(planted.BANDS), "stamp_size": SIZE}
    recipe = Recipe.from_mapping(
        {**told, "settings": settings, "training": {"epochs": 1, "batch_size": 64}, "typicality": {"fit": False}}
    )
    bundle = train(recipe, data=source, out=str(tmp_path / "own")).bundle
    reference = reference_of(ModelBundle.load(bundle))
    assert reference is not None
    assert reference.bands == planted.BANDS
    assert "p_marked" in reference.outputs
    infer(source, bundle=bundle, out=str(tmp_path / "catalog"))
    section = made_by(drift.section, str(tmp_path / "catalog"))
    assert "Compared with the training of own" in section.text
    assert not notes(section)  # it is measured on what it was trained on
    fitted = ModelBundle.load(bundle)
    card = replace(fitted.card, training={k: v for k, v in fitted.card.training.items() if k != "reference"})
    old = ModelBundle.save(str(tmp_path / "old"), fitted.network(), card, fitted.known_objects())
    assert reference_of(old) is None
    again = fit_reference(old.url, data=source)
    assert again.card.training["reference"] == fitted.card.training["reference"]
    assert again.card.weights_sha256 == fitted.card.weights_sha256
    few = planted.store(str(tmp_path / "few.zarr"), "band", 20, 64)
    with pytest.raises(InputError, match="from 6 stamps: give 40 or more"):
        fit_reference(old.url, data=few, out=str(tmp_path / "none"))


def test_another_mix_of_what_was_trained_on_is_not_new_to_a_network() -> None:
    known, rng = np.random.default_rng(0).uniform(0.5, 1.0, 500), np.random.default_rng(1)
    reference, tiles = Reference.of({}, {"seeing": known}), tuple("abcdef")
    notes_of = {}
    for name, low in (("inside", 0.7), ("outside", 1.05), ("same", 0.5)):
        values = rng.uniform(low, 1.0 if name == "same" else low + 0.05, 300)
        mine = Sampled(tiles, {"seeing": values}, np.arange(300) % 6, {}, np.zeros(0, np.int64), "")
        notes_of[name] = drift.of_training(drift.compared(reference, mine), tiles)
    assert ["Spread otherwise" in one.text for one in notes_of["inside"]] == [True]
    assert ["Beyond the training, 1 of 1" in one.text and one.bad for one in notes_of["outside"]] == [True]
    assert ["Nothing is reported" in one.text for one in notes_of["same"]] == [True]


@pytest.mark.parametrize("name", shipped())
def test_bundles_that_ship_keep_what_their_training_looked_like(name: str) -> None:
    reference = reference_of(ModelBundle.load(name))
    assert reference is not None
    assert reference.bands
    assert bool(reference.outputs) == (name != "segmentation")
    assert all(np.isfinite(one.quantiles).all() for one in (*reference.inputs.values(), *reference.outputs.values()))


# ---- the area ----------------------------------------------------------------------------------------------------


def test_a_moc_without_mocpy_holds_the_same_cells() -> None:
    told = json.loads(moc_json(np.array([16, 17, 18, 19, 21, 4000]), 5))
    assert told == {"4": [4], "5": [21, 4000]}
    whole = json.loads(moc_json(np.arange(12 * 4**2), 2))
    assert whole == {"0": list(range(12))}
    mocpy = pytest.importorskip("mocpy")
    cells = np.unique(np.random.default_rng(0).integers(0, 12 * 4**6, 5000))
    mine = mocpy.MOC.from_json(json.loads(moc_json(cells, 6)))
    assert mine == mocpy.MOC.from_healpix_cells(cells.astype(np.uint64), np.full(len(cells), 6, np.uint8), max_depth=6)


def test_the_page_knows_nothing_of_the_network(catalog: Catalog) -> None:
    text = html.document(page_of(catalog.url))
    assert not re.search(r'(src|href)="(?!data:|#)', re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL))
