"""The public names are those of docs/api.md, each can be had, and none costs anything before it is used."""

import ast
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import astroml_plugin

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "api.md").read_text()
NOUNS = {
    "AstromlError",
    "Card",
    "Catalog",
    "Column",
    "Cutouts",
    "DetectingTask",
    "Detections",
    "Grid",
    "InputError",
    "LabelledStamps",
    "MeasureOptions",
    "Measured",
    "ModelBundle",
    "Normalisation",
    "ObjectFlag",
    "QueryResult",
    "Selection",
    "Stamps",
    "Survey",
    "Task",
    "TaskSettings",
    "Tile",
    "TileInfo",
    "TilePlace",
    "Unit",
    "UnitResult",
    "Wcs",
    "__version__",
    "declared_schema",
    "flag_names",
    "float_labels",
    "measure",
    "measure_frame",
    "measure_partition",
    "open_source",
}
"""Stable names. One that goes, or changes its meaning, is a change that the changelog must explain."""
PACKAGES = sorted(
    ".".join(file.parent.relative_to(ROOT).parts)
    for package in ("astroml_plugin", "workflows")
    for file in (ROOT / package).rglob("__init__.py")
)


def test_the_names_of_the_package_are_the_stable_ones() -> None:
    assert set(astroml_plugin.__all__) == NOUNS
    assert len(astroml_plugin.__all__) == len(NOUNS)
    assert set(astroml_plugin.__all__) <= set(dir(astroml_plugin))
    with pytest.raises(AttributeError, match="no attribute 'Servey'"):
        _ = astroml_plugin.Servey


def test_every_name_can_be_had_and_type_checkers_see_the_same_one() -> None:
    tree = ast.parse(Path(astroml_plugin.__file__).read_text())
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    homes = {alias.name: node.module for node in checked.body for alias in node.names}
    assert set(homes) == NOUNS - {"__version__"}
    for name, home in homes.items():
        assert getattr(astroml_plugin, name) is getattr(import_module(home), name)


def test_the_page_names_what_is_stable_and_nothing_else() -> None:
    nouns = PAGE.partition("## Names: `astroml_plugin`")[2].partition("## What stable means")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", nouns, re.MULTILINE)) == NOUNS - {"__version__"}


def test_the_page_names_a_function_for_every_workflow() -> None:
    rows = re.findall(r"^\| `(workflows\.\w+)` \| (.+) \|$", PAGE, re.MULTILINE)
    for module, functions in rows:
        for function in re.findall(r"`(\w+)`", functions):
            assert callable(getattr(import_module(module), function))
    named = {module.removeprefix("workflows.") for module, _ in rows}
    files = [file.stem for file in (ROOT / "workflows").glob("[!_]*.py")]
    given = {name for name in files if callable(getattr(import_module(f"workflows.{name}"), name, None))}
    assert named == given | {"demo"}


def test_the_import_loads_no_torch_ray_or_dask() -> None:
    code = "import sys, astroml_plugin; dir(astroml_plugin); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"torch", "ray", "dask", "distributed", "zarr", "numpy", "pyarrow", "astropy"}.isdisjoint(loaded.split())


@pytest.mark.parametrize("package", PACKAGES)
def test_names_that_a_package_gives_are_there(package: str) -> None:
    module = import_module(package)
    for name in getattr(module, "__all__", ()):
        if not hasattr(module, name):
            import_module(f"{package}.{name}")


def test_verbs_that_run_no_network_load_no_torch() -> None:
    code = (
        "import sys, workflows.ingest, workflows.info, workflows.query, workflows.compact, workflows.verify, "
        "workflows.rank, workflows.label, workflows.shear, workflows.segmentation_map; print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"torch", "ray", "sklearn"}.isdisjoint(loaded.split())


def test_a_run_is_stated_without_what_carries_it_out() -> None:
    code = "import sys, workflows.infer; workflows.infer.MeasureOptions(band='r'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"torch", "pandas", "sklearn", "scipy", "astropy", "duckdb", "zarr"}.isdisjoint(loaded.split())


def test_a_run_loads_neither_what_brings_files_in_nor_astropy_for_stamps_without_positions(tmp_path: Path) -> None:
    code = (
        "import sys, astroml_plugin.inference.driver, astroml_plugin.inference.preparing; print(*sys.modules);"
        "import numpy, pyarrow;"
        "from astroml_plugin.catalog import Catalog, schema;"
        "row = dict(object_id=[1], image=['a'], tile=['b'], x=[1.0], y=[1.0], ra=[numpy.nan], dec=[numpy.nan]);"
        "rows = pyarrow.table({**row, 'primary': [True], 'flags': numpy.zeros(1, numpy.int32)});"
        "Catalog.create('catalog', schema([]), {}).encode_part(rows, 'b', '0');"
        "print(*sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    run, stamps = (set(line.split()) for line in done.stdout.splitlines())
    assert {"astroml_plugin.sources.ingest", "astropy.nddata", "PIL", "sep", "torch._dynamo"}.isdisjoint(run)
    assert {"astropy", "astropy_healpix", "scipy"}.isdisjoint(stamps)
