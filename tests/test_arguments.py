"""The command line is the signature: all options of every verb's function, and what a file of --config may say."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from astroml_plugin.core.errors import InputError
from astroml_plugin.cutting.labels import LabelTable
from astroml_plugin.evaluation.shear_catalog import ShearOptions
from astroml_plugin.inference.options import ExecutionOptions, MeasureOptions, ObjectTable
from astroml_plugin.labelling.session import SessionSettings
from astroml_plugin.search.session import SearchExecution
from astroml_plugin.search.settings import SearchSettings
from astroml_plugin.simulation.options import StampSimulation, SurveySimulation
from astroml_plugin.sources.ingest import IngestOptions
from astroml_plugin.training.learning_curves import CurveOptions
from astroml_plugin.training.method_comparison import CompareOptions
from astroml_plugin.training.recalibration import ResponseOptions
from astroml_plugin.training.run import TrainExecution
from tests import universe
from workflows.cli import VERBS, _parser, main
from workflows.rank import RankOptions
from workflows.verbs import signatures
from workflows.verbs.arguments import FROM_PYTHON, RUN_OPTIONS, settings
from workflows.verbs.signatures import REQUIRED, parameters

OPTION_OBJECTS = {
    "compare": (CompareOptions,),
    "learning-curve": (CurveOptions,),
    "calibrate-response": (ResponseOptions,),
    "infer": (MeasureOptions, ExecutionOptions, ObjectTable),
    "ingest": (IngestOptions,),
    "simulate": (StampSimulation, SurveySimulation),
    "train": (TrainExecution, LabelTable),
    "evaluate": (LabelTable,),
    "search": (SearchSettings, SearchExecution),
    "shear": (ShearOptions,),
    "rank": (RankOptions,),
    "label": (SessionSettings,),
}


def function_of(verb: str) -> object:
    module, _, name = VERBS[verb].function.partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("verb", VERBS)
def test_every_parameter_is_an_option_or_says_why_not(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    shown = capsys.readouterr().out
    always = ["--out", "o"] if verb == "calibrate-response" else []
    options = vars(_parser().parse_args([verb, "--config", "/dev/null", *always]))
    hidden = {**FROM_PYTHON, **VERBS[verb].hidden}
    assert all(hidden.values())
    fields = {field.name for kind in OPTION_OBJECTS.get(verb, ()) for field in dataclasses.fields(kind)}
    taken = {one.holder for one in VERBS[verb].parameters()} | {"options"}
    for name, one in inspect.signature(function_of(verb)).parameters.items():  # type: ignore[arg-type]
        if one.kind is not one.VAR_KEYWORD and name not in taken:
            fields.add(name)
    assert fields - set(hidden) <= set(options)
    assert not set(VERBS[verb].hidden) & set(options)
    for one in VERBS[verb].parameters():
        assert one.name == RUN_OPTIONS or one.help.strip(), f"{one.name} of {verb} has no text"
    assert "None:" not in shown


@pytest.mark.parametrize("kind", sorted({kind for kinds in OPTION_OBJECTS.values() for kind in kinds}, key=str))
def test_what_the_source_says_is_what_python_sees(kind: type) -> None:
    read = {one.name: one for one in parameters(f"{kind.__module__}:{kind.__name__}")}
    assert list(read) == [field.name for field in dataclasses.fields(kind)]
    for field in dataclasses.fields(kind):
        if read[field.name].default not in (None, REQUIRED):
            assert read[field.name].default == field.default


def test_a_new_field_is_an_option_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real, module = signatures._source, "astroml_plugin.training.run"
    changed = ast.parse(
        inspect.getsource(importlib.import_module(module)).replace(
            "    resume: bool = True\n",
            '    patience: float = 2.5\n    """Hours to wait."""\n    resume: bool = True\n',
        )
    )
    monkeypatch.setattr(signatures, "_source", lambda name: changed if name == module else real(name))
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = capsys.readouterr().out
    assert "--patience X" in shown
    assert "hours to wait (default 2.5)" in shown


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_imports_no_torch(verb: str) -> None:
    code = (
        f"import sys; from workflows.cli import main\ntry: main(['{verb}', '--help'])\nexcept SystemExit: pass\n"
        "print({'torch', 'dask', 'zarr', 'ray', 'astropy', 'numpy'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "set()"


def given(tmp_path: Path, text: str, *words: str) -> dict:
    """Keywords of the function, from a file of --config and a command line."""
    (tmp_path / "c.toml").write_text(text)
    return settings(_parser().parse_args([*words[:1], "--config", str(tmp_path / "c.toml"), *words[1:]]))


def test_a_file_for_any_verb_and_the_command_line_before_it(tmp_path: Path) -> None:
    text = 'recipe = "ellipticity"\ndata = ["a.zarr", "b.zarr"]\nout = "b"\nepochs = 3\n[execution]\nprocesses = 2\n'
    found = given(tmp_path, text, "train", "--epochs", "5", "--device", "cpu")
    assert found.pop("execution") == TrainExecution(device="cpu", processes=2)
    assert found == {"recipe": "ellipticity", "data": ["a.zarr", "b.zarr"], "out": "b", "epochs": 5}
    found = given(tmp_path, 'out = "s"\nseed = 4\nbands = ["g", "r"]\n', "simulate", "--snr", "5,50", "--seed", "6")
    assert found == {"out": "s", "seed": 6, "bands": ["g", "r"], "snr": (5.0, 50.0)}
    found = given(tmp_path, "[options]\nhalo = 32\nnpz_map = {images = 'x'}\n", "ingest", "a", "b", "--out", "s")
    assert found == {"inputs": ["a", "b"], "out": "s", "options": IngestOptions(halo=32, npz_map={"images": "x"})}
    found = given(tmp_path, "trials = 4\n[execution]\nretrain = true\n", "search", "r", "--data", "d", "--out", "o")
    assert found["trials"] == 4
    assert found["execution"] == SearchExecution(retrain=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch = 3", "unknown key 'epoch' in the file of --config: did you mean 'epochs'"),
        ('epochs = "many"', "epochs in --config must be a whole number"),
        ("[execution]\nprocess = 3", "unknown key 'process' in the options of train: did you mean 'processes'"),
        ("[execution]\nprocesses = 1.5", "processes in the options of train must be a whole number"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        given(tmp_path, text, "train", "ellipticity", "--data", "d", "--out", "b")


@pytest.mark.parametrize(
    ("flag", "value", "word"),
    [
        ("--frame", "sky", "galactic"),
        ("--objects-format", "x", "sextractor"),
        ("--pixel-origin", "2", "origin of 0 or 1"),
    ],
)
def test_words_that_no_table_of_objects_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str, word: str
) -> None:
    universe.make_survey(str(tmp_path / "survey.zarr"))
    universe.make_bundle(str(tmp_path / "kind"))
    pq.write_table(pa.table({"object_id": [1], "ra": [150.0], "dec": [2.0]}), tmp_path / "o.parquet")
    words = [
        str(tmp_path / "survey.zarr"),
        "--bundle",
        str(tmp_path / "kind"),
        "--objects",
        str(tmp_path / "o.parquet"),
    ]
    assert main(["infer", *words, "--out", str(tmp_path / "c"), flag, value]) == 2
    assert word in capsys.readouterr().err
