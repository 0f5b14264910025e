"""Images for the tutorials: real ones from the folder ASTROML_TEST_DATA; without it, drawn ones."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from astropy.io import fits
from matplotlib_inline.backend_inline import set_matplotlib_formats

REAL = Path(os.environ.get("ASTROML_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")).absolute()


@dataclass(frozen=True)
class Pictures:
    """Colour pictures of galaxies with classes of Galaxy Zoo 1."""

    images: np.ndarray
    """(n, 64, 64, 3) uint8."""
    label: np.ndarray
    """(n,) 0 elliptical, 1 and 2 spiral, 3 edge-on, 5 merger."""
    object_id: np.ndarray
    """(n,) int64."""
    real: bool
    """Whether these are SDSS galaxies."""


def start() -> None:
    """Go to a new folder, so that nothing of yours is overwritten, and make small figures."""
    os.chdir(tempfile.mkdtemp(prefix="astroml-tutorial-"))
    plt.rcParams.update({"figure.dpi": 72, "image.origin": "lower", "font.size": 9})
    set_matplotlib_formats("jpeg", pil_kwargs={"quality": 80})


def image() -> tuple[str, str | None]:
    """A CCD image as a FITS file, and a Source Extractor catalog of it where there is one."""
    real = REAL / "ntt" / "sep_ntt_emmi_256.fits"
    if real.exists():
        return str(real), str(real.with_suffix(".sextractor.cat"))
    rng, side = np.random.default_rng(7), 256
    y, x = np.mgrid[:side, :side]
    pixels = np.full((side, side), 6800.0)
    for _ in range(70):
        at, flux = rng.uniform(5, side - 5, 2), 10 ** rng.uniform(2.3, 4.5)
        width, round_ = rng.uniform(1.2, 3), rng.uniform(0.6, 1)
        pixels += flux / width**2 * np.exp(-0.5 * ((x - at[0]) ** 2 + ((y - at[1]) / round_) ** 2) / width**2)
    fits.writeto("drawn.fits", rng.normal(pixels, 65).astype(np.float32), overwrite=True)
    return "drawn.fits", None


def galaxy_zoo(each: int, *, mergers: int = 0) -> Pictures:
    """Galaxies without mergers in the order of the file, and so many mergers."""
    real = REAL / "gz1_sdss_rgb64_dev.npz"
    if not real.exists():
        return _drawn(each, mergers)
    with np.load(real) as archive:
        label = archive["y"]
        chosen = np.concatenate([np.flatnonzero(label < 4)[:each], np.flatnonzero(label == 5)[:mergers]])
        ids = archive["objid"][chosen].astype(np.int64)
        return Pictures(archive["x"][chosen], label[chosen].astype(np.int64), ids, True)


def show(images: np.ndarray, titles: list[str], columns: int = 8) -> None:
    """Pictures (n, y, x, 3) in rows, each with a title."""
    rows = -(-len(images) // columns)
    _, axes = plt.subplots(rows, columns, figsize=(1.3 * columns, 1.5 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, picture, title in zip(axes.flat, images, titles):
        axis.imshow(picture)
        axis.set_title(title, fontsize=8)
    plt.tight_layout()
    plt.show()


def picture(file: str, inches: float = 9) -> None:
    """A PNG file, at most so wide."""
    pixels = plt.imread(file)
    width = min(inches, pixels.shape[1] / 72)
    figure = plt.figure(figsize=(width, width * pixels.shape[0] / pixels.shape[1]))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.imshow(pixels, origin="upper")
    axis.axis("off")
    plt.show()


def _drawn(each: int, mergers: int) -> Pictures:
    rng = np.random.default_rng(3)
    label = np.concatenate([rng.choice([0, 1, 3], each, p=[0.7, 0.15, 0.15]), np.full(mergers, 5)])
    images = np.stack([_galaxy(int(kind), rng) for kind in label])
    return Pictures(images, label.astype(np.int64), np.arange(len(label)), False)


def _galaxy(kind: int, rng: np.random.Generator) -> np.ndarray:
    """One drawn picture (64, 64, 3) of a class."""
    y, x = np.mgrid[:64, :64] - 32.0
    angle, size = rng.uniform(0, np.pi), rng.uniform(4, 7)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    radius = np.hypot(along, across / (0.2 if kind == 3 else rng.uniform(0.75, 1)))
    light = 180 * np.exp(-radius / size)
    if kind == 1:
        light *= 1 + 0.8 * np.cos(2 * np.arctan2(across, along) - radius / 3)
    if kind == 5:
        light += 150 * np.exp(-np.hypot(along - rng.uniform(8, 14), across) / 3)
    colours = np.stack([light, 0.85 * light, 0.7 * light], axis=-1)
    return np.clip(rng.normal(colours + 8, 3), 0, 255).astype(np.uint8)
