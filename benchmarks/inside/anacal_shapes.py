"""AnaCal's FPFS at given places: stamps side by side in images of a memory-mapped array, one PSF for all of them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.inside.serving import Pass, serve


def imports() -> None:
    """anacal."""
    import anacal  # noqa: F401


def prepare(told: dict[str, Any]) -> Pass:
    """A pass over all images, an image per thread.

    Args:
        told: `images` (.npy, (n, y, x)), `psf` (.npy, (side, side), centred on side // 2), `side` of a stamp, `scale`
            in arcsec, `variance`, `zero_point`, `cores`, `answers` (.npy file that gets (n, 2) e1 and e2).
    """
    import anacal

    images, psf = np.load(told["images"], mmap_mode="r"), np.load(told["psf"]).astype(np.float64)
    side, rows = told["side"], images.shape[1] // told["side"]
    y, x = np.mgrid[:rows, :rows].reshape(2, -1) * side + side // 2
    places = np.zeros(len(x), [("y", "f8"), ("x", "f8")])
    places["y"], places["x"] = y, x
    chosen = anacal.fpfs.FpfsConfig(npix=side, sigma_shapelets1=0.52)

    def measured(number: int) -> np.ndarray:
        found = anacal.fpfs.process_image(
            fpfs_config=chosen,
            pixel_scale=told["scale"],
            noise_variance=told["variance"],
            mag_zero=told["zero_point"],
            gal_array=np.ascontiguousarray(images[number], np.float64),
            psf_array=psf,
            detection=places,
        )
        return np.stack([found["fpfs1_e1"], found["fpfs1_e2"]], axis=1)

    pool = ThreadPoolExecutor(told["cores"])

    def once() -> dict[str, Any]:
        started = time.perf_counter()
        found = np.concatenate(list(pool.map(measured, range(len(images)))))
        seconds = time.perf_counter() - started
        np.save(told["answers"], found)
        return {"seconds": seconds}

    return once


if __name__ == "__main__":
    serve(imports, prepare)
