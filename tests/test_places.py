"""Paths and URLs come as text or as `pathlib.Path`: every public function takes both, and means the same by them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

import astroml_plugin
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import text_of
from tests import universe
from workflows.export import export
from workflows.infer import infer
from workflows.info import info
from workflows.query import query
from workflows.rank import rank

PAGE = (Path(__file__).parents[1] / "docs" / "api.md").read_text()

TEXTS = {
    *(
        "band",
        "bands",
        "baselines",
        "called",
        "client",
        "dec",
        "device",
        "image",
        "kind",
        "memory",
        "name",
        "object_id",
    ),
    *("outside", "prefix", "ra", "roles", "sql", "tile", "units", "who"),
}
"""Parameters of public functions that are texts and no places."""
FORMATS = {"export.to", "generate.labels"}
"""Parameters whose name is that of a place elsewhere: the latter are values of columns."""


def public() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Functions of `workflows`, and functions and methods of the nouns of `astroml_plugin`, by name."""
    for module, functions in re.findall(r"^\| `(workflows\.\w+)` \| (.+) \|$", PAGE, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", functions):
            found = getattr(import_module(module), name)
            if inspect.isfunction(found):
                yield f"{module.partition('.')[2]}.{name}" if name in ("dry_run", "plan") else name, found
    for noun in ("Survey", "Stamps", "Catalog", "ModelBundle", "LabelledStamps", "Tile"):
        kind = getattr(astroml_plugin, noun)
        for name in ("open", "create", "load", "save", "from_fits", "__init__"):
            if hasattr(kind, name) and (name != "__init__" or noun == "LabelledStamps"):
                yield f"{noun}.{name}", getattr(kind, name)
    for name in ("open_source", "measure", "measure_frame", "measure_partition", "declared_schema"):
        yield name, getattr(astroml_plugin, name)


def parameters(function: Callable[..., Any]) -> dict[str, str]:
    """Name -> type as it is written, of the parameters."""
    found = inspect.signature(function).parameters.items()
    return {name: re.sub(r"(Mapping|dict)\[str,", "", str(one.annotation)) for name, one in found}


FUNCTIONS = dict(public())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_takes_a_text_takes_a_path_or_is_no_place(name: str) -> None:
    for parameter, kind in parameters(FUNCTIONS[name]).items():
        if re.search(r"\bstr\b", kind) and parameter not in TEXTS and f"{name}.{parameter}" not in FORMATS:
            assert "Place" in kind or "PathLike" in kind, f"{parameter} of {name}: paths are of the type Place"


def given(function: Callable[..., Any], folder: Path, make: Callable[[str], Any]) -> dict[str, Any]:
    """A place that does not exist for every parameter that takes one, and something for what is needed beside it."""
    found: dict[str, Any] = {"to": "fits"} if function is export else {}
    for name, one in inspect.signature(function).parameters.items():
        if re.search(r"\bPlace\b", str(one.annotation)):
            ending = {"to": ".fits", "out": ".zarr"}.get(name, "")
            found[name] = make(str(folder / f"none-{name}{ending}"))
    return found


QUICK = (
    *(
        "adapt",
        "annotate",
        "calibrate_response",
        "class_statistics",
        "cluster",
        "compact",
        "compare",
        "evaluate",
        "export",
    ),
    *("fit_typicality", "fit_reference"),
    *(
        "generate",
        "infer",
        "infer.dry_run",
        "info",
        "label",
        "open_labels",
        "learning_curve",
        "query",
        "rank",
        "recalibrate",
        "report",
    ),
    *("search", "segmentation_map", "shear", "train", "verify", "cutouts", "open_source", "report"),
    *("Survey.open", "Stamps.open", "Catalog.open", "ModelBundle.load"),
)


@pytest.mark.parametrize("name", QUICK)
def test_a_path_that_leads_nowhere_is_the_same_complaint_as_its_text(name: str, tmp_path: Path) -> None:
    function, said = FUNCTIONS[name], []
    for make in (str, Path):
        more = {"name": "n"} if name == "annotate" else {}
        with pytest.raises(InputError) as caught:
            function(**given(function, tmp_path, make), **more)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert "none-" in said[0]


def test_a_run_of_paths(tmp_path: Path) -> None:
    universe.make_survey(str(tmp_path / "survey.zarr"), shape=(192, 192), tile_size=192, halo=32)
    objects = Path(universe.make_objects(tmp_path / "objects.parquet", 30, (192, 192)))
    universe.make_bundle(str(tmp_path / "kind"))
    catalog = tmp_path / "catalog"
    found = infer(tmp_path / "survey.zarr", bundle=[tmp_path / "kind"], objects=objects, out=catalog)
    assert found.rows == 30
    assert found.catalog == str(catalog)
    assert query(catalog, to=tmp_path / "all.csv").rows == 30
    score = next(name for name in query(catalog).table.column_names if name.startswith("p_"))
    assert len(rank(catalog, top=5, score=score, to=tmp_path / "top.csv")) == 5
    assert export(catalog, to="parquet", out=tmp_path / "all.parquet").rows == 30
    assert [one.kind for one in info([catalog, tmp_path / "survey.zarr", tmp_path / "kind"])] == [
        "catalog",
        "survey",
        "bundle",
    ]


def test_what_pathlib_makes_of_a_url_is_refused() -> None:
    for lost in (PurePosixPath("s3://bucket/catalog"), PurePosixPath("https://example.org/catalog")):
        with pytest.raises(InputError, match=r"out of the URL (s3|https)://.*: give URLs as text"):
            storage.is_local(lost)
    assert text_of("s3://bucket/catalog") == "s3://bucket/catalog"
    assert text_of(PurePosixPath("a:b/c")) == "a:b/c"


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("wrong", [None, 7], ids=["None", "7"])
def test_what_is_no_path_is_refused_in_one_sentence(name: str, wrong: object, tmp_path: Path) -> None:
    """The first place is wrong, the others lead nowhere."""
    function = FUNCTIONS[name]
    places = given(function, tmp_path, str)
    places[next(iter(inspect.signature(function).parameters))] = wrong
    with pytest.raises(InputError):
        function(**places, **({"name": "n"} if name == "annotate" else {}))


def test_the_sentence_about_no_path() -> None:
    with pytest.raises(InputError, match="a path or a URL is needed, as text or as a Path, not None"):
        text_of(None)  # type: ignore[arg-type]
