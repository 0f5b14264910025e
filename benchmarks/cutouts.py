"""`cutouts` beside Cutana (ESA) on the same FITS tiles: stamps per second from files to Zarr and to FITS files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from astropy.io import fits

from astroml_plugin.compute.cluster import connect, cores
from astroml_plugin.sky.wcs import Wcs
from astroml_plugin.sources.stamps import Stamps
from benchmarks.environments import PeerMissingError, interpreter
from benchmarks.harness import REPEATS, Section, interleave, median_iqr, scratch
from benchmarks.skies import tan_header
from tests.pages import table
from workflows.cutouts import cutouts
from workflows.ingest import ingest

TILES, SIDE, PER_TILE, STAMP = 8, 4096, 1000, 64
SCALE = 0.1 / 3600
PEER = os.environ.get("ASTROML_CUTANA", "")
"""Python of an environment that has Cutana; empty: the benchmark makes one."""

_PEER = """
import json, os, sys, time
from cutana import Orchestrator, get_default_config
told = json.loads(sys.argv[1])
config = get_default_config()
config.source_catalogue, config.output_dir, config.output_format = told["table"], told["out"], told["format"]
config.selected_extensions = [{"name": "PRIMARY", "ext": "PrimaryHDU"}]
config.channel_weights = {"PRIMARY": [1.0]}
config.target_resolution, config.normalisation_method, config.data_type = told["size"], "none", "float32"
config.apply_flux_conversion, config.skip_fits_check = False, True
config.do_only_cutout_extraction = told["format"] == "fits"
config.max_workers = told["workers"]
config.loadbalancer.initial_workers = told["workers"]
config.loadbalancer.skip_memory_calibration_wait = True
config.loadbalancer.main_process_memory_reserve_gb = 0.5
config.loadbalancer.max_sources_per_process = told["sources"]
started = time.perf_counter()
result = Orchestrator(config).run()
print(json.dumps({"seconds": time.perf_counter() - started, "status": str(result.get("status"))}))
"""

NAMES = {
    "ours, from FITS": "`ingest` + `cutouts` to Zarr, from FITS files, 2 threads",
    "ours": "`cutouts` to Zarr, from the survey, 2 threads",
    "ours, to FITS": "`cutouts` to FITS files, from the survey, 2 threads",
    "cutana": "Cutana to Zarr, from FITS files",
    "cutana, to FITS": "Cutana to FITS files (raw cutouts), from FITS files",
}


def run() -> Section:
    """Stamps of 64 px around 8,000 objects on 8 FITS tiles of 4096² float32 pixels with a WCS, no variance or mask."""
    folder = _tiles()
    count, out = TILES * PER_TILE, scratch() / "cutouts-out"
    with connect("local", threads=cores()) as client:
        survey = ingest(str(folder / "*.fits"), out=str(folder / "survey.zarr"), client=client).source
        ours = partial(_ours, client, survey, str(folder / "objects.parquet"), out)
        arms: dict[str, Callable[[], float]] = {
            "ours, from FITS": lambda: _from_fits(client, folder, out),
            "ours": partial(ours, "s.zarr"),
            "ours, to FITS": partial(ours, "files"),
            "cutana": lambda: _cutana(folder, out, "zarr"),
            "cutana, to FITS": lambda: _cutana(folder, out, "fits"),
        }
        missing = _without_cutana(arms)
        _check(arms, out, count)
        seconds = interleave(arms)
    rows, rates = [], {}
    for name in arms:
        rate = [count / value for value in seconds[name]]
        rates[name] = float(np.median(rate))
        rows.append([NAMES[name], median_iqr(rate, 0), median_iqr(seconds[name], 2)])
    rows.append(["canary", "", median_iqr(seconds["canary"])])
    text = (
        f"{run.__doc__} All arms read the same files, run in turn, {REPEATS} times, on {cores()} cores, with files in "
        "the page cache. Seconds are those of the call: Cutana's own worker processes start within it, as they do in "
        "use, one for each core; its checks of the files are off, and its pixels are neither stretched nor scaled. "
        "Ours also write a mask, flags, ids and the local WCS; their FITS files have the WCS and a mask.\n\n"
    )
    text += table(["how", "stamps/s", "s"], rows) + missing
    return Section("Cutouts beside Cutana", text, rates)


def _tiles() -> Path:
    """Tiles of noise with WCS, tables of their objects for both; made once."""
    folder = scratch() / f"cutouts-{TILES}-{SIDE}-{PER_TILE}"
    if folder.exists():
        return folder
    making = folder.with_suffix(".making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    rng = np.random.default_rng(11)
    rows: list[pd.DataFrame] = []
    for number in range(TILES):
        header = tan_header(150 + 0.3 * number, SIDE, SCALE)
        name = f"tile{number}.fits"
        fits.PrimaryHDU(rng.normal(0, 1, (SIDE, SIDE)).astype(np.float32), header).writeto(making / name)
        x, y = rng.uniform(STAMP, SIDE - STAMP, (2, PER_TILE))
        ra, dec = Wcs.from_header(header).to_sky(x, y)
        files = json.dumps([str(folder / name)])
        rows.append(pd.DataFrame({"RA": ra, "Dec": dec, "fits_file_paths": files}))
    found = pd.concat(rows, ignore_index=True)
    found["SourceID"], found["diameter_pixel"] = [f"{number}" for number in range(len(found))], STAMP
    found.to_parquet(making / "peer.parquet")
    own = found.rename(columns={"SourceID": "object_id", "RA": "ra", "Dec": "dec"})[["object_id", "ra", "dec"]]
    own.sample(frac=1, random_state=1).to_parquet(making / "objects.parquet")
    making.rename(folder)
    return folder


def _ours(client: Any, survey: str, objects: str, out: Path, name: str) -> float:
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    cutouts(survey, objects=objects, out=str(out / name), size=STAMP, client=client)
    return time.perf_counter() - started


def _from_fits(client: Any, folder: Path, out: Path) -> float:
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    survey = ingest(str(folder / "*.fits"), out=str(out / "survey.zarr"), client=client).source
    cutouts(survey, objects=str(folder / "objects.parquet"), out=str(out / "s.zarr"), size=STAMP, client=client)
    return time.perf_counter() - started


def _cutana(folder: Path, out: Path, kind: str) -> float:
    shutil.rmtree(out, ignore_errors=True)
    told = {"table": str(folder / "peer.parquet"), "out": str(out), "format": kind, "size": STAMP}
    told |= {"workers": cores(), "sources": TILES * PER_TILE // cores()}  # type: ignore[dict-item]
    done = subprocess.run(
        [PEER or str(interpreter("cutana")), "-c", _PEER, json.dumps(told)], capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    if answer["status"] != "completed":
        raise RuntimeError(f"Cutana ended {answer['status']}: {done.stdout[-2000:]}")
    return float(answer["seconds"])


def _without_cutana(arms: dict[str, Callable[[], float]]) -> str:
    """Nothing where Cutana is there; else its arms are taken out, and this says so."""
    if PEER:
        return ""
    try:
        interpreter("cutana")
    except PeerMissingError as error:
        for name in [name for name in arms if name.startswith("cutana")]:
            del arms[name]
        return f"\n\nCutana is missing: {error}."
    return ""


def _check(arms: dict[str, Callable[[], float]], out: Path, count: int) -> None:
    """A first pass of each arm, untimed: all stamps are there, and those of both are the same pixels."""
    for name, arm in arms.items():
        arm()
        if name.endswith("to FITS"):
            found = len([file for file in out.rglob("*.fits") if file.is_file()])
        elif name == "cutana":
            found = sum(len(pd.read_parquet(file)) for file in out.rglob("images_metadata.parquet"))
        else:
            found = Stamps.open(str(out / "s.zarr")).count
        if found != count:
            raise RuntimeError(f"{name} gave {found} of {count} stamps")
