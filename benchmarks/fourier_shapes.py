"""Shapes of galaxies: the bundle `ellipticity` beside AnaCal's FPFS on the same pixels. Speed, not accuracy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from astroml_plugin.compute.cluster import connect, cores
from benchmarks import shapes
from benchmarks.environments import Peer, PeerMissingError
from benchmarks.harness import REPEATS, Section, interleave, median_iqr, scratch
from tests.pages import table

SIDE = shapes.SIZE
ROW = 32
"""Stamps along a side of an image for the peer: 1,024 on each."""
NAMES = {
    "ours": ("`infer`, bundle `ellipticity`", "Zarr, zstd; variance and a PSF for each stamp", "the catalog"),
    "anacal": ("AnaCal, FPFS at given places", "memory-mapped images, not compressed; one PSF", "–"),
}


def run() -> Section:
    """16,384 stamps of 48 px in one band to two ellipticities with what calibrates them."""
    with ExitStack() as stack:
        arms, note = arms_of(stack)
        for arm in arms.values():
            arm()
        seconds = interleave(arms)
    rows, figures = [], {}
    for name in arms:
        ratio = [theirs / ours for theirs, ours in zip(seconds[name], seconds["ours"], strict=True)]
        rate = [shapes.STAMPS / value for value in seconds[name]]
        rows.append([*NAMES[name], median_iqr(rate, 0), median_iqr(ratio, 2)])
        figures[name] = float(np.median(ratio))
    rows.append(["canary, s", "", "", median_iqr(seconds["canary"]), ""])
    text = (
        f"{run.__doc__} Round galaxies on noise, in turn, {REPEATS} times, on {cores()} cores, models loaded before. "
        "The two are different estimators, so that numbers cannot be the same: FPFS is calibrated analytically, the "
        "bundle by a response per galaxy. AnaCal is not asked to detect.\n\n"
    )
    text += table(["how", "reads", "writes", "galaxies/s", "time ÷ ours"], rows)
    return Section("Shapes beside AnaCal", f"{text}\n\n{note}".strip(), figures)


def arms_of(stack: ExitStack) -> tuple[dict[str, Callable[[], float]], str]:
    """Arms by name, each of which returns its seconds, and a sentence for what is missing."""
    client = stack.enter_context(connect("local"))
    make = partial(shapes.ellipticities, scratch() / "shapes-peers")
    make()
    arms: dict[str, Callable[[], float]] = {"ours": partial(shapes.whole, client, make)}
    told: dict[str, Any] = {**_files(), "side": SIDE, "scale": 0.2, "variance": 9.0, "zero_point": 31.4}
    told |= {"cores": cores(), "answers": str(scratch() / "anacal.npy")}
    try:
        peer = stack.enter_context(Peer("anacal", "anacal_shapes", told, cores()))
        peer()
    except PeerMissingError as error:
        return arms, f"AnaCal is missing: {error}."
    arms["anacal"] = lambda: float(peer()["seconds"])
    return arms, ""


def _files() -> dict[str, str]:
    """The same stamps side by side in images, and their PSF on a grid of a stamp; made once."""
    images, psf = scratch() / "anacal-images.npy", scratch() / "anacal-psf.npy"
    if not images.exists():
        stamps = zarr.open_array(f"{scratch() / f'shapes-{shapes.STAMPS}.zarr'}/image", mode="r")
        np.save(psf, shapes.blob(SIDE, 1.7))
        part = Path(f"{images}.part.npy")
        shape = (stamps.shape[0] // ROW**2, ROW * SIDE, ROW * SIDE)
        made = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=shape)
        for number in range(len(made)):
            block = stamps[number * ROW**2 : (number + 1) * ROW**2, 0].reshape(ROW, ROW, SIDE, SIDE)
            made[number] = block.transpose(0, 2, 1, 3).reshape(shape[1:])
        made.flush()
        part.rename(images)
    return {"images": str(images), "psf": str(psf)}
