"""`ingest` beside the least that brings the same pixels from FITS to Zarr: `fits.open` and an assignment."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from astropy.io import fits
from zarr.codecs import ZstdCodec

from astroml_plugin.compute.cluster import connect, cores
from astroml_plugin.sources.survey import Survey
from benchmarks.harness import REPEATS, Section, interleave, median_iqr, scratch, timed
from benchmarks.skies import tan_header
from tests.pages import table
from workflows.ingest import ingest

IMAGES, SIDE, CHUNK = 8, 4096, 512
SCALE = 0.2 / 3600
PLANES = {"image": ("PRIMARY", "float32"), "variance": ("VARIANCE", "float32"), "mask": ("MASK", "uint32")}

SETS = {"images": ("image",), "images, variances and masks": ("image", "variance", "mask")}
"""What the files of a set hold."""


def run() -> Section:
    """Throughput of `ingest` over that of a loop of `fits.open` and Zarr writes, with the same chunks and codec."""
    rows, data = [], {}
    with connect("local", threads=cores()) as client:
        for name, planes in SETS.items():
            folder, out = _files(planes), scratch() / "ingest-out"
            files = sorted(str(file) for file in folder.glob("*.fits"))
            arms = {
                "plain": timed(partial(_plain, files, out, planes, 1)),
                "plain, a thread for each core": timed(partial(_plain, files, out, planes, cores())),
                "ingest --background off": timed(partial(_ingest, files, out, client, "off")),
                "ingest": timed(partial(_ingest, files, out, client, "auto")),
            }
            _check(arms, files, out, planes)
            seconds = interleave(arms)
            megapixels = len(files) * SIDE**2 * len(planes) / 1e6
            for arm in arms:
                rate = [megapixels / value for value in seconds[arm]]
                ratio = [plain / value for plain, value in zip(seconds["plain"], seconds[arm], strict=True)]
                rows.append([name, arm, median_iqr(rate, 0), median_iqr(ratio)])
                data[f"{name}: {arm}"] = float(np.median(ratio))
            rows.append([name, "canary, s", median_iqr(seconds["canary"]), ""])
    text = (
        f"{run.__doc__} {IMAGES} files of {SIDE}² float32 pixels of noise, on {cores()} cores, in turn, {REPEATS} "
        "times, files in the page cache. The plain loop writes what the files hold and nothing else. Ours also finds "
        "out what each plane is, writes a mask where there was none, finds pixels that cannot be used, measures sky "
        "and noise, and stores a SHA-256 of every tile.\n\n"
    )
    return Section("Ingest beside a plain loop", text + table(["files of", "how", "Mpix/s", "over plain"], rows), data)


def _files(planes: Sequence[str]) -> Path:
    """Files of noise with WCS; made once."""
    folder = scratch() / f"ingest-{IMAGES}-{SIDE}-{len(planes)}"
    if folder.exists():
        return folder
    make_files(folder.with_suffix(".making"), planes, IMAGES, SIDE).rename(folder)
    return folder


def make_files(folder: Path, planes: Sequence[str], images: int, side: int) -> Path:
    """A new folder with so many FITS files of `side`² pixels of noise with a WCS."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    rng = np.random.default_rng(5)
    for number in range(images):
        header = tan_header(150 + 0.4 * number, side, SCALE)
        image = rng.normal(0, 5, (side, side)).astype(np.float32)
        hdus: list[Any] = [fits.PrimaryHDU(image, header)]
        if "variance" in planes:
            variance = rng.normal(25, 0.5, (side, side)).astype(np.float32)
            mask = (rng.random((side, side)) < 0.01).astype(np.int32)
            hdus += [fits.ImageHDU(variance, header, name="VARIANCE"), fits.ImageHDU(mask, header, name="MASK")]
        fits.HDUList(hdus).writeto(folder / f"image{number}.fits")
    return folder


def _plain(files: Sequence[str], out: Path, planes: Sequence[str], threads: int) -> None:
    """One Zarr array for each kind of plane, in the chunks, shards and codec of a survey."""
    shutil.rmtree(out, ignore_errors=True)
    arrays = {
        name: zarr.create_array(
            out / name,
            shape=(len(files), 1, SIDE, SIDE),
            chunks=(1, 1, CHUNK, CHUNK),
            shards=(1, 1, SIDE, SIDE),
            dtype=PLANES[name][1],
            compressors=[ZstdCodec(level=1, checksum=True)],
        )
        for name in planes
    }

    def bring(number: int) -> None:
        with fits.open(files[number]) as opened:
            for name, array in arrays.items():
                array[number, 0] = opened[PLANES[name][0]].data

    if threads == 1:
        for number in range(len(files)):
            bring(number)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(bring, range(len(files))))


def _ingest(files: Sequence[str], out: Path, client: Any, background: str) -> None:
    shutil.rmtree(out, ignore_errors=True)
    ingest(list(files), out=str(out), tile_size=SIDE, halo=0, background=background, client=client)


def _check(arms: Any, files: Sequence[str], out: Path, planes: Sequence[str]) -> None:
    """Every arm stores the same pixels; the sky of the default is 0 here."""
    with fits.open(files[0]) as opened:
        wanted = opened[0].data.astype(np.float32)
    for name, arm in arms.items():
        arm()
        if name.startswith("plain"):
            found = zarr.open_array(out / "image")[0, 0]
        else:
            survey = Survey.open(str(out))
            assert len(survey) == len(files)
            found = survey.read_tile(survey.tile(0)).image[0]
            assert ("variance" in survey.array_names) == ("variance" in planes)
        np.testing.assert_array_equal(found, wanted, err_msg=name)
