"""The verb `info`, and `ingest --dry-run`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from astroml_plugin.core.errors import InputError
from tests.fits_layouts import Layout, P
from tests.test_ingest_fits import noise, write
from workflows.cli import main
from workflows.info import info
from workflows.ingest import dry_run, ingest


@pytest.fixture
def image(tmp_path: Path) -> str:
    """An image with errors, a plane that nobody knows, and no zero point."""
    planes = (P("SCI", "image", {"BUNIT": "adu"}), P("ERR", "std"), P("THING", "other", values="image"))
    return str(Layout("", "a.fits", planes).write(tmp_path)[0])


def test_planes_of_a_file(image: str) -> None:
    (one,) = info(image)
    assert one.kind == "FITS file"
    assert one.column("role") == ["image", "std", "other"]
    assert one.column("goes with") == ["ERR", "SCI", ""]
    assert one.column("zero point")[0] == "none: BUNIT adu is no flux, and there is no zero point"
    assert one.column("scale") == ["0.18", "", ""]
    assert float(one.column("sky")[0]) == pytest.approx(10, abs=1)
    assert any("THING is left out" in note for note in one.notes)
    assert "EXTNAME ERR" in repr(info(image))
    assert "<td>EXTNAME ERR</td>" in one._repr_html_()
    (other,) = info(image, roles="THING=mask")
    assert other.column("role")[2] == "mask"


def test_what_ingest_would_refuse_is_said(tmp_path: Path) -> None:
    pair = Layout("", "p.fits", (P("", "image"), P("", "image"))).write(tmp_path)[0]
    (one,) = info(str(pair))
    assert one.column("role") == ["unclear", "unclear"]
    assert one.notes[0].startswith("ingest refuses it: ")


def test_stores_bundles_and_archives(tmp_path: Path, image: str) -> None:
    ingest(image, out=str(tmp_path / "s.zarr"), bands="r")
    np.savez(tmp_path / "a.npz", images=np.zeros((3, 8, 8), "f4"), label=np.arange(3))
    ingest(str(tmp_path / "a.npz"), out=str(tmp_path / "t.zarr"))
    survey, stamps, archive = info([str(tmp_path / name) for name in ("s.zarr", "t.zarr", "a.npz")])
    assert (survey.kind, survey.facts["bands"], survey.column("unit")) == ("survey", "r", ["adu"])
    assert (stamps.kind, stamps.column("column")) == ("stamps", ["object_id", "ra", "dec", "label"])
    assert archive.rows == (("images", "3 x 8 x 8", "float32"), ("label", "3", "int64"))
    (bundle,) = info("morphology")
    assert bundle.facts["task"] == "classify"
    nothing = "no file, .* at nosuch, and no bundle at nosuch"
    for path, says in (("nosuch", nothing), (str(tmp_path / "no.fits"), "does not exist")):
        with pytest.raises(InputError, match=says):
            info(path)


def test_dry_run_writes_nothing(tmp_path: Path, image: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "s.zarr")
    assert main(["ingest", image, "--out", out, "--roles", "THING=weight", "--dry-run"]) == 0
    assert "by hand (roles)" in capsys.readouterr().out
    assert not Path(out).exists()
    second = write(tmp_path / "b.fits", noise())
    assert [one.path for one in dry_run([image, "-", second])] == [image, second]
    assert main(["info", image, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["rows"][0][2] == "image"
