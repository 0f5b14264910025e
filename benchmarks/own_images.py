"""From an image of one's own to a page about it: each real image, by the verbs as a newcomer types them.

python -m benchmarks --only own_images
"""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Section, kept, shared_data
from tests.pages import table
from workflows.cli import main

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]
"""Carries a command out, given its words."""

TITLE = "Own images: from FITS to a page"
BUNDLE = "segmentation"
MINUTES = 10


@dataclass(frozen=True)
class Image:
    """One image, with the files of its weights and masks."""

    kind: str
    """Camera or survey: a row of the table."""
    files: tuple[str, ...]
    """Files, the image first; below the folder of real images."""
    options: tuple[str, ...] = ()
    """Options of `ingest` that its refusal asks for."""


@dataclass(frozen=True)
class Tried:
    """What came of an image."""

    kind: str
    name: str
    commands: int
    minutes: float
    rows: int
    """Objects that were found; -1: there is no catalog."""
    page: float
    """Size of the page, MB."""
    said: tuple[str, ...]
    """Refusals and warnings, one sentence each."""
    ended: bool
    """Whether there is a page."""


def images(folder: Path) -> Iterator[Image]:
    """All images of the folder of real data that are FITS, with what stands beside them."""

    def below(path: Path) -> str:
        return str(path.relative_to(folder))

    for path in sorted(folder.glob("decam_bass_mzls/**/*.fits")):
        name = path.name
        camera = next((one for one in ("decam", "90prime", "mosaic") if f"/{one}/" in str(path)), "unWISE")
        if camera == "unWISE" and name != "time_resolved_atlas.fits":
            yield Image("unWISE", (below(path),))
        elif match := re.search(r"_(ooi|oki)_", name):
            beside = [path.with_name(name.replace(match[0], f"_{word}_")) for word in ("oow", "ood")]
            there = [one for one in beside if one.exists()]
            kind = {"decam": "DECam", "90prime": "90prime", "mosaic": "Mosaic-3"}[camera]
            yield Image(f"{kind} {match[1]}, weights and masks beside it", tuple(map(below, [path, *there])))
        elif camera == "90prime" and not re.search(r"\.wht|_oo[wd]_", name):
            yield Image("90prime, weights beside it", (below(path), below(path).replace(".fits", ".wht.fits")))
    for kind, pattern in SINGLE.items():
        yield from (Image(kind, (below(path),), OPTIONS.get(kind, ())) for path in sorted(folder.glob(pattern)))


SINGLE = {
    "SDSS frame, bzip2": "sdss/frame-*.fits.bz2",
    "M 51, 16 bits, no WCS": "m51_512.fits",
    "NTT, no WCS": "ntt/*.fits",
    "Spitzer IRAC mosaic": "spitzer/*.fits",
    "Euclid, four bands": "euclid/*.fits",
    "MUSE white light": "muse/IMAGE*.fits",
    "MUSE cube": "muse/CUBE.fits",
    "MUSE cube, mosaic": "muse/subcub*.fits",
    "FIRST radio": "radio/*.fits",
    "HST stamps, 100 in a file": "cosmos_real26/real_galaxy_images*.fits",
}
NOTES = """What the counts do not say:

- FIRST: `segmentation` was trained on optical images whose noise has no correlation, and the beam correlates the
  noise of a radio map. It finds 230 to 241 objects in a field of 0.02 square degrees, where the survey's own
  catalog (some 90 sources per square degree) has about two: most are peaks of the noise. The run notes that the
  pixels are of another scale, and that no PSF tells how far that matters. Train a bundle of your own for such
  data, or give `--objects`.
- MUSE cubes: these are cut-outs of 10 by 20 and 30 by 30 pixels in hundreds of wavelengths. Each is smaller than
  the window that the network looks at. Their row says that such files come in and give a page; 0 and 2 objects
  say nothing of how well objects are found in a cube."""
OPTIONS: dict[str, tuple[str, ...]] = {}
"""Kind -> options of `ingest` that the sentence of the first try asks for."""


def tried(image: Image, data: Path, run: Run) -> Tried:
    """Bring an image in, find objects, and write the page; at most three commands."""
    files = [str(data / name) for name in image.files]
    began, commands, said = time.perf_counter(), 0, []
    rows, page, ended = -1, 0.0, False
    with tempfile.TemporaryDirectory(prefix="own-image-") as folder:
        survey, catalog = f"{folder}/survey.zarr", f"{folder}/catalog"
        for options in ((), image.options) if image.options else ((),):
            commands += 1
            done = run("ingest", *files, *options, "--out", survey)
            said += _sentences(done)
            if done.returncode == 0:
                break
        if done.returncode == 0:
            commands += 1
            done = run("infer", survey, "--bundle", BUNDLE, "--out", catalog, "--report")
            said += _sentences(done)
            found = re.search(r"^(\d+) rows in", done.stdout, re.MULTILINE)
            rows = int(found[1]) if found else -1
            if (file := Path(catalog) / "report.html").exists():
                page, ended = file.stat().st_size / 2**20, True
        else:
            rows = -1
    minutes = (time.perf_counter() - began) / 60
    return Tried(image.kind, image.files[0], commands, minutes, rows, page, tuple(said), ended)


def as_typed(*words: str) -> Done:
    """The command in a process of its own, as on a terminal."""
    command = [str(Path(sys.executable).with_name("astroml-plugin")), *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60 * MINUTES)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"astroml-plugin: stopped after {MINUTES} minutes")


def here(*words: str) -> Done:
    """The command in this process: no start, for images of which one was timed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())


def _sentences(done: Done) -> list[str]:
    """What was said on stderr, without progress, next commands and places."""
    lines = [line for line in done.stderr.splitlines() if re.match(r"(astroml-plugin|warning|note): ", line)]
    return [re.sub(r"\S*/(?=[^/\s]+)", "", line)[:400] for line in lines]


def run() -> Section:
    """Two commands: `ingest FILES --out survey.zarr`, then `infer survey.zarr --bundle segmentation … --report`."""
    data = shared_data("")
    if data is None:
        return Section(TITLE, "Not measured: there are no real images here (ASTROML_TEST_DATA).")
    found: list[Tried] = []
    for one in images(data):
        way: Run = here if one.kind in {before.kind for before in found} else as_typed
        found.append(Tried(**kept(f"own-{_slug(one)}", partial(_tried, one, data, way))))
        print(found[-1], flush=True)
    rows = []
    for kind in dict.fromkeys(one.kind for one in found):
        mine = [one for one in found if one.kind == kind]
        ended = [one for one in mine if one.ended]
        objects = sum(one.rows for one in ended)
        most, slowest = max(one.commands for one in mine), mine[0].minutes
        rows.append([kind, str(len(mine)), str(len(ended)), str(most), f"{slowest:.2f}", f"{objects:,}"])
    late = [one.name for one in found if one.minutes > MINUTES]
    text = (
        f"{run.__doc__} Minutes: of the first image, from the first key to the page, each command a process, on a "
        f"machine that others used too. More than {MINUTES} minutes: {len(late)} of {len(found)}.\n\n"
        + table(["images", "number", "with a page", "commands", "minutes", "objects"], rows)
    )
    text += f"\n\n{NOTES}"
    refusals = _refusals(found)
    if refusals:
        text += "\n\nWhat was refused, and what was said:\n\n" + "\n".join(f"- {line}" for line in refusals)
    return Section(TITLE, text, {"tried": [asdict(one) for one in found]})


def _tried(image: Image, data: Path, run: Run) -> dict[str, Any]:
    return asdict(tried(image, data, run))


def _slug(image: Image) -> str:
    return re.sub(r"\W+", "-", image.files[0]).strip("-")


def _refusals(found: list[Tried]) -> list[str]:
    """Each kind with the sentence that ended it, once."""
    told: dict[str, Any] = {}
    for one in found:
        if not one.ended and one.said:
            told.setdefault(one.kind, one.said[-1].removeprefix("astroml-plugin: "))
    return [f"{kind}: “{sentence}”" for kind, sentence in told.items()]
