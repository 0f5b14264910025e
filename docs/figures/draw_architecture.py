"""Draws docs/figures/architecture.png: the road from pixels to catalog in one figure."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

INK, STORE, WORK, SIDE = "#1b2a41", "#dceaf7", "#fbe8c8", "#e3f1df"


def box(axes: plt.Axes, x: float, y: float, width: float, height: float, title: str, text: str, colour: str) -> None:
    """A rounded box with a title and a smaller line or two."""
    style = "round,pad=0.02,rounding_size=0.12"
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=colour, edgecolor=INK, linewidth=1.2)
    )
    axes.text(x + width / 2, y + height * 0.70, title, ha="center", va="center", fontsize=11, weight="bold", color=INK)
    axes.text(
        x + width / 2, y + height * 0.30, text, ha="center", va="center", fontsize=8.2, color=INK, linespacing=1.25
    )


def arrow(
    axes: plt.Axes, start: tuple[float, float], end: tuple[float, float], text: str = "", dashed: bool = False
) -> None:
    """An arrow with a word beside it."""
    line = "dashed" if dashed else "solid"
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, color=INK, linewidth=1.3, linestyle=line)
    )
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    vertical = abs(end[0] - start[0]) < 0.1
    shift = (0.10, 0.0) if vertical else (0.0, 0.13)
    axes.text(
        middle[0] + shift[0], middle[1] + shift[1], text,
        ha="left" if vertical else "center", va="center", fontsize=8.2, style="italic", color=INK,
    )  # fmt: skip


def main() -> None:
    """Draw and save."""
    figure, axes = plt.subplots(figsize=(11, 4.6), dpi=150)
    axes.set_xlim(0, 13.2)
    axes.set_ylim(0, 5.5)
    axes.axis("off")
    box(axes, 0.1, 3.2, 1.9, 1.5, "FITS, stamps", "files or URLs,\nany WCS, masks", STORE)
    box(axes, 3.0, 3.2, 2.2, 1.5, "Source", "Survey tiles or Stamps\nin Zarr v3, one shard\nper unit and array", STORE)
    box(axes, 6.5, 2.7, 3.2, 2.5, "Dask worker", "", WORK)
    axes.patches[-1].set_zorder(0)
    axes.texts[-2].set_position((8.1, 4.92))
    box(axes, 6.7, 3.72, 2.8, 1.0, "Cutouts", "the tile moves to the device\nonce, stamps are cut there", "white")
    box(axes, 6.7, 2.82, 2.8, 0.78, "Task + network", "resident, loaded once", "white")
    box(axes, 10.9, 3.2, 2.1, 1.5, "Catalog", "Parquet parts, schema,\nmanifest, run records", STORE)
    box(axes, 3.0, 0.5, 2.2, 1.3, "training.fit", "splits, augmentation,\ncheckpoints", SIDE)
    box(axes, 6.9, 0.5, 2.4, 1.3, "ModelBundle", "card + safetensors,\nnormalisation inside", SIDE)
    box(axes, 10.9, 0.5, 2.1, 1.3, "Query", "SQL, cone; Parquet,\nCSV, FITS, VOTable", SIDE)
    arrow(axes, (2.05, 3.95), (2.95, 3.95), "ingest")
    arrow(axes, (5.25, 3.95), (6.45, 3.95), "units")
    arrow(axes, (9.75, 3.95), (10.85, 3.95), "parts")
    arrow(axes, (4.1, 3.15), (4.1, 1.85), "labels")
    arrow(axes, (5.25, 1.15), (6.85, 1.15), "train")
    arrow(axes, (8.1, 1.85), (8.1, 2.65), "infer")
    arrow(axes, (11.95, 3.15), (11.95, 1.85), "query")
    figure.savefig(Path(__file__).parent / "architecture.png", bbox_inches="tight", facecolor="white")


if __name__ == "__main__":
    main()
