"""Small labelled stamps for tests of training: Gaussians of known ellipticity, or two kinds of blobs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from astroml_plugin.sources.stamps import Stamps

SIZE = 24

NETWORK = """
task = "ellipticity"
[settings]
stamp_size = 24
psf = "none"
any_band = true
[network_arguments]
widths = [4, 8]
hidden = 8
pooling = "grid"
"""
"""Beginning of a recipe: a small network for these stamps."""


NO_TYPICALITY = """
[typicality]
fit = false
"""
"""End of a recipe whose test asks nothing of the typicality: its fit takes longer than such trainings."""


def gaussians(e: np.ndarray, rng: np.random.Generator, noise: float = 0.02) -> np.ndarray:
    """(n, 1, SIZE, SIZE) float32 Gaussians of reduced shear e (n, 2), peak 1."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    chi = 2 * e / (1 + (e**2).sum(1, keepdims=True))
    determinant = 1 - (chi**2).sum(1)
    xx, yy, xy = (1 - chi[:, 0]) / determinant, (1 + chi[:, 0]) / determinant, -chi[:, 1] / determinant
    power = xx[:, None, None] * x**2 + 2 * xy[:, None, None] * x * y + yy[:, None, None] * y**2
    image = np.exp(-0.5 * power / 9) + rng.normal(0, noise, power.shape)
    return image[:, None].astype(np.float32)


def write_stamps(
    url: str,
    image: np.ndarray,
    labels: dict,
    *,
    block: int = 64,
    bands: tuple[str, ...] = ("r",),
    psf: np.ndarray | None = None,
    object_id: np.ndarray | None = None,
    scale: float = 0.2,
) -> str:
    """A store of the images (n, band, h, w) in blocks."""
    size = None if psf is None else psf.shape[-2:]
    store = Stamps.create(
        url, bands=bands, size=image.shape[-2:], dtype=str(image.dtype), block=block, pixel_scale=scale, psf_size=size
    )
    ids = np.arange(len(image)) if object_id is None else object_id
    first = store.reserve(-(-len(image) // block))
    for number, start in enumerate(range(0, len(image), block)):
        part = slice(start, start + block)
        checksum = store.write_block(first + number, image[part], None, None if psf is None else psf[part])
        table = pa.table({"object_id": ids[part], **{name: values[part] for name, values in labels.items()}})
        store.commit_objects(first + number, table, checksum)
    return url


def ellipticity_stamps(url: str, count: int = 256, seed: int = 0, psf: bool = False) -> str:
    """Stamps with labels e1, e2, snr."""
    rng = np.random.default_rng(seed)
    e = rng.uniform(-0.4, 0.4, (count, 2))
    kernel = np.ones((count, 1, 9, 9), np.float32) if psf else None
    labels = {"e1": e[:, 0], "e2": e[:, 1], "snr": rng.uniform(10, 200, count)}
    return write_stamps(url, gaussians(e, rng), labels, psf=kernel)


def class_stamps(url: str, count: int = 240, seed: int = 0) -> str:
    """Two bands of uint8: wide blobs and points, label `kind` as numbers 1 and 2."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(1, 3, count)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    width = np.where(kind == 1, 5.0, 1.5)[:, None, None]
    image = 20 + 150 * np.exp(-0.5 * (x**2 + y**2) / width**2) + rng.normal(0, 4, (count, SIZE, SIZE))
    pixels = np.clip(np.stack([image, 0.5 * image], axis=1), 0, 255).astype(np.uint8)
    return write_stamps(url, pixels, {"kind": kind}, bands=("g", "r"))
