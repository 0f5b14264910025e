"""A small real DetectingTask: a matched filter with fixed weights and a local rule for which pixel is whose."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor, nn

from astroml_plugin.catalog import Column
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.tasks.detection import PARENT, DetectingTask, Detections, Field
from astroml_plugin.training.bundle import Card, ModelBundle
from tests import universe

RADIUS = 12
"""Pixels from its peak within which a pixel may belong to an object."""

THRESHOLD, FOOTPRINT = 6.0, 2.5
"""Significance of peaks, and of the pixels around them."""


class SpotNetwork(nn.Module):
    """Significance of a Gaussian blob at each pixel; a second map whose value depends on the phase of a stride of 4."""

    def __init__(self, bands: int, outputs: int, *, psf: bool = False, sigma: float = 3.0) -> None:
        super().__init__()
        t = torch.arange(-7, 8) / sigma
        kernel = torch.exp(-(t[:, None] ** 2 + t[None] ** 2) / 2)
        self.filter = nn.Conv2d(1, 1, 15, padding=7, bias=False)
        self.filter.weight.data[:] = kernel / kernel.square().sum().sqrt()

    def forward(self, given: Tensor) -> Tensor:
        """(n, 2, h, w) from S/N per pixel and 1 where there is any."""
        significance = self.filter(given[:, :1])
        coarse = nn.functional.avg_pool2d(given[:, :1], 4)
        return torch.cat([significance, nn.functional.interpolate(coarse, scale_factor=4, mode="nearest")], 1)


class SpotTask(DetectingTask):
    """Blobs: peaks of the significance, and the pixels around them."""

    window, overlap, stride, reach, channels = 64, 8, 4, 32, 2
    labels = ()

    def columns(self) -> list[Column]:
        fluxes = [Column(f"flux_{band}", "float32", "nJy", "phot.flux", "Sum of the label") for band in self.bands]
        return [
            Column("area", "int32", "pix**2", "phys.angArea", "Pixels of the label"),
            Column("kind", "string", "", "src.class", "blob or speck"),
            Column(PARENT, "int64", "", "meta.id.parent", "Brightest object within reach"),
            *fluxes,
        ]

    def choose_bands(self, available: object, band: str | None = None) -> tuple[str, ...]:
        if self.settings.any_band and self.bands == ("any",):
            return (band,) if band else tuple(available)  # type: ignore[arg-type]
        return super().choose_bands(available, band)  # type: ignore[arg-type]

    def targets(self, table: object) -> Tensor:
        raise NotImplementedError

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        raise NotImplementedError

    def prepare(self, cutouts: Cutouts) -> tuple[tuple[Tensor, ...], Tensor]:
        weight = cutouts.valid.float()
        if cutouts.variance is not None:
            weight = weight / torch.where(cutouts.valid, cutouts.variance, 1)
        total = weight.sum(1, keepdim=True)
        signal = (cutouts.image * weight).sum(1, keepdim=True) / total.clamp(min=1e-12).sqrt()
        return (torch.cat([signal, (total > 0).float()], 1),), torch.zeros(len(cutouts), dtype=torch.int32)

    def detect(self, maps: np.ndarray, field: Field) -> Detections:
        score = maps[0] + 0.01 * maps[1]
        peak_y, peak_x = np.nonzero((ndimage.maximum_filter(score, 5) == score) & (score > THRESHOLD))
        labels = np.zeros(score.shape, np.int32)
        fluxes = {f"flux_{band}": np.zeros(len(peak_x), np.float32) for band in field.bands}
        x, y, area = (peak_x.astype(float), peak_y.astype(float), np.zeros(len(peak_x), np.int32))
        flags = np.full(len(peak_x), 0 if field.variance is not None else int(ObjectFlag.NO_VARIANCE), np.int32)
        parent = np.arange(len(peak_x))
        if len(peak_x):
            tree = cKDTree(np.stack([peak_x, peak_y], 1))
            rows, columns = np.nonzero(score > FOOTPRINT)
            beside = np.stack([columns + 0.0013, rows + 0.0029], 1)  # so that no two peaks are equally near
            distance, nearest = tree.query(beside, distance_upper_bound=RADIUS)
            near = np.isfinite(distance)
            labels[rows[near], columns[near]] = nearest[near] + 1
            number = range(1, len(peak_x) + 1)
            area = ndimage.sum_labels(labels > 0, labels, number).astype(np.int32)
            at_y, at_x = np.indices(labels.shape)
            light = np.clip(score, 0.1, None)
            x, y = (ndimage.sum_labels(light * at, labels, number) for at in (at_x, at_y))
            x, y = (value / ndimage.sum_labels(light, labels, number) for value in (x, y))
            fluxes = {
                f"flux_{band}": ndimage.sum_labels(plane, labels, number).astype(np.float32)
                for band, plane in zip(field.bands, field.image)
            }
            if field.bits is not None:
                np.bitwise_or.at(flags, labels[labels > 0] - 1, np.bitwise_or.reduce(field.bits, 0)[labels > 0])
            height = score[peak_y, peak_x]
            for one, others in enumerate(tree.query_ball_point(np.stack([peak_x, peak_y], 1), 16)):
                parent[one] = max(others, key=lambda other: (height[other], -other))
        kind = np.where(area > 30, "blob", "speck").astype(object)
        columns = {"area": area, "kind": kind, PARENT: parent, **fluxes}
        return Detections(labels, x, y, peak_x, peak_y, columns, flags)


def make_bundle(url: str, bands: tuple[str, ...] = ("r",), **settings: object) -> str:
    """A bundle of it; `bands` ("any",) with any_band reads all bands of its source."""
    task = SpotTask.from_settings({"bands": list(bands), "pixel_scale": 0.2, **settings})
    card = Card(url.rstrip("/").rpartition("/")[2], "spots", task.to_settings(), "spotter", {})
    ModelBundle.save(url, task.build_network(SpotNetwork, {}), card)
    return url


@contextmanager
def installed(folder: Path) -> Iterator[dict[str, str]]:
    """The task and its network registered as an installer would; gives the environment for other processes."""
    metadata = folder / "spotter-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: spotter\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[astroml_plugin.tasks]\nspots = tests.spotter:SpotTask\n"
        "[astroml_plugin.networks]\nspotter = tests.spotter:SpotNetwork\n"
    )
    sys.path.insert(0, str(folder))
    try:
        yield {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{Path(__file__).parents[1]}"}
    finally:
        sys.path.remove(str(folder))


@contextmanager
def small_sky(folder: Path) -> Iterator[None]:
    """The task installed, a survey with its objects, and the bundles `kind` and `spots`, in a folder."""
    with installed(folder / "site"):
        universe.make_survey(str(folder / "survey.zarr"))
        universe.make_objects(folder / "objects.parquet", count=60)
        universe.make_bundle(str(folder / "kind"))
        make_bundle(str(folder / "spots"))
        yield
