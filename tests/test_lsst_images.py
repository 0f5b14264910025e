"""A file that the package `lsst-images` has written, in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from astroml_plugin.core.flags import MaskBit
from tests.test_ingest_fits import run, whole

WRITER = Path(__file__).with_name("lsst_images_file.py")
PYTHONS = (
    *("python3.12", "python3.13", "python3.14"),
    *map(str, Path.home().glob(".pyenv/versions/3.1[2-9]*/bin/python")),
)


def works(python: str) -> bool:
    """Whether an interpreter starts (pyenv has names of others)."""
    found = shutil.which(python)
    return found is not None and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0


def with_lsst_images(folder: Path) -> str:
    """Python of a new environment with the package; ASTROML_LSST_PYTHON names one that is there."""
    python = next((one for one in PYTHONS if works(one)), None)
    if python is None:
        pytest.skip("lsst-images needs Python 3.12 or newer, and there is none here")
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    install = [str(folder / "bin" / "pip"), "install", "-q", "lsst-images"]
    if subprocess.run(install, capture_output=True, check=False).returncode:
        pytest.skip("lsst-images cannot be installed here")
    return str(folder / "bin" / "python")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_file_of_lsst_images_is_known(tmp_path: Path, client: Any) -> None:
    python = os.environ.get("ASTROML_LSST_PYTHON") or with_lsst_images(tmp_path / "env")
    path = tmp_path / "a.fits"
    subprocess.run([python, str(WRITER), str(path)], check=True)
    result, survey = run(client, path, tmp_path / "a.zarr", background="off")
    assert survey.bands == ("c000",)
    assert not any("mean" in warning or "guess" in warning for warning in result.warnings)
    with fits.open(path) as hdus:
        np.testing.assert_array_equal(whole(survey, "a")[0], hdus["IMAGE"].data)
        np.testing.assert_array_equal(whole(survey, "a", "variance")[0], hdus["VARIANCE"].data)
        there = WCS(hdus["IMAGE"].header)
    bits = whole(survey, "a", "mask")[0, 10, 9:14].tolist()
    assert bits == [0, MaskBit.BAD, MaskBit.SATURATED, MaskBit.COSMIC_RAY, MaskBit.DETECTED]
    info = survey.tile(0)
    assert info.zero_points["c000"] == pytest.approx(31.4, abs=0.001)
    sky = info.wcs().to_sky(30.0 - info.outer.x0, 90.0 - info.outer.y0)
    np.testing.assert_allclose(np.ravel(sky), np.ravel(there.all_pix2world(30.0, 90.0, 0)), atol=1e-9)
