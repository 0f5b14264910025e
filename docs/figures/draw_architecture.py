"""Draws docs/figures/architecture.png: how data flow, and the rooms of the package on their floors.

The floors are read from the import contract in pyproject.toml, so the figure and the check cannot disagree.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

HERE = Path(__file__).parent
INK, STORE, WORK, ROOM, TOP = "#1b2a41", "#dceaf7", "#fbe8c8", "#f3f4f6", "#e3f1df"
ROOMS = {
    "preload": "Dask workers ready from the start",
    "lsst": "tasks and storage for LSST middleware",
    "reporting": "pages about runs, evaluations, searches, surveys",
    "explanation": "which pixels made a number",
    "showing": "pictures of fields",
    "search": "hyperparameters, Ray",
    "inference": "read → upload → detect → measure → write",
    "training": "splits, fitting, checkpoints, bundles",
    "simulation": "skies with truth",
    "labelling": "scoring by eye",
    "cutting": "stamps of a survey",
    "tasks": "one folder per science: columns, loss, metrics",
    "evaluation": "metrics, calibration, baselines, reports",
    "catalog": "schema, parts, queries, ranking",
    "sources": "Survey and Stamps in Zarr, ingest",
    "cutouts": "pixels around objects, on any device",
    "pixels": "a tile as read, NumPy alone",
    "networks": "layers and models, PyTorch alone",
    "sky": "world coordinates, duplicates",
    "compute": "devices, Dask clusters, memory",
    "core": "errors, flags, settings, storage, names on disk",
}
WIDTH, FLOOR, GAP = 13.0, 0.5, 0.1


def floors() -> list[list[str]]:
    """Rooms by floor, top first, from the contract that `lint-imports` checks."""
    settings = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract.get("exhaustive"))
    return [layer.split(" | ") for layer in layers]


def box(axes: plt.Axes, x: float, y: float, width: float, height: float, colour: str) -> None:
    """A rounded box whose lower left corner is at (x, y)."""
    style = "round,pad=0,rounding_size=0.1"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=colour, edgecolor=INK, linewidth=1))


def write(axes: plt.Axes, x: float, y: float, text: str, size: float = 8.5, **style: str) -> None:
    """Text centred at (x, y) unless `style` says otherwise."""
    axes.text(x, y, text, fontsize=size, color=INK, **{"ha": "center", "va": "center"} | style)


def arrow(axes: plt.Axes, start: tuple[float, float], end: tuple[float, float], text: str = "") -> None:
    """An arrow, with a word beside its middle."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, color=INK, linewidth=1.3))
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    if abs(start[0] - end[0]) < 0.1:
        write(axes, x + 0.1, y, text, style="italic", ha="left")
    else:
        write(axes, x, y + 0.14, text, style="italic")


def station(axes: plt.Axes, x: float, y: float, width: float, title: str, text: str, colour: str) -> None:
    """A box of the data's journey: what the thing is called, and a line or two on it."""
    box(axes, x, y, width, 1.1, colour)
    write(axes, x + width / 2, y + 0.82, title, 11, weight="bold")
    write(axes, x + width / 2, y + 0.36, text, linespacing=1.3)


def draw_journey(axes: plt.Axes, base: float) -> None:
    """The upper half: from images to answers, and from labels to a bundle."""
    write(axes, 0, base + 3.75, "How data flow", 12, weight="bold", ha="left")
    top = base + 2.1
    station(axes, 0, top, 1.7, "Images", "FITS or stamps,\nfiles or URLs", STORE)
    station(axes, 2.6, top, 2.1, "Source", "Survey or Stamps\nin Zarr", STORE)
    box(axes, 5.6, top - 0.3, 3.6, 1.75, WORK)
    write(axes, 7.4, top + 1.22, "Dask workers (infer)", 11, weight="bold")
    for x, text in ((5.72, "Cutouts"), (6.9, "model"), (8.08, "table")):
        box(axes, x, top + 0.33, 1.0, 0.45, "white")
        write(axes, x + 0.5, top + 0.55, text, 9.5)
    for x in (6.72, 7.9):
        arrow(axes, (x - 0.02, top + 0.55), (x + 0.2, top + 0.55))
    write(axes, 7.4, top + 0.0, "models stay loaded on CPU or GPU", 8)
    station(axes, 10.1, top, 2.9, "Catalog", "Parquet rows with units, flags,\nerrors; label maps", STORE)
    station(axes, 2.6, base, 2.1, "Training", "split, augment, fit,\nkeep the best epoch", WORK)
    station(axes, 5.6, base, 3.6, "ModelBundle", "JSON card + safetensors,\nnothing executed", STORE)
    station(axes, 10.1, base, 2.9, "Answers", "SQL, cones, rankings;\nFITS, CSV, VOTable, Parquet", TOP)
    middle = top + 0.55
    arrow(axes, (1.73, middle), (2.57, middle), "ingest")
    arrow(axes, (4.73, middle), (5.57, middle), "read")
    arrow(axes, (9.23, middle), (10.07, middle), "write")
    arrow(axes, (3.65, top - 0.03), (3.65, base + 1.13), "stamps, labels")
    arrow(axes, (4.73, base + 0.55), (5.57, base + 0.55), "save")
    arrow(axes, (7.4, base + 1.13), (7.4, top - 0.33), "load")
    arrow(axes, (11.55, top - 0.03), (11.55, base + 1.13), "query, rank")


def name_room(axes: plt.Axes, x: float, y: float, name: str, text: str) -> None:
    """The name of a room and what is in it, in the box at (x, y)."""
    write(axes, x + 0.2, y + FLOOR / 2, name, 10.5, weight="bold", ha="left")
    write(axes, x + 1.86, y + FLOOR / 2, text, 9, ha="left")


def draw_house(axes: plt.Axes, rooms: list[list[str]]) -> None:
    """The lower half: the rooms, floor above floor."""
    title = "Where it is in the code: a room imports only from floors below it"
    top = len(rooms) * (FLOOR + GAP)
    write(axes, 0, top + FLOOR + 0.3, title, 12, weight="bold", ha="left")
    box(axes, 0, top, WIDTH, FLOOR, TOP)
    name_room(axes, 0, top, "workflows", "one function and one verb per job; they only choose")
    for index, floor in enumerate(rooms):
        y = top - (index + 1) * (FLOOR + GAP)
        width = (WIDTH - GAP * (len(floor) - 1)) / len(floor)
        for column, room in enumerate(floor):
            x = column * (width + GAP)
            box(axes, x, y, width, FLOOR, ROOM)
            name_room(axes, x, y, room, ROOMS[room])


def main() -> None:
    """Draw and save."""
    rooms = floors()
    assert {room for floor in rooms for room in floor} == ROOMS.keys(), "say in ROOMS what each room of the contract is"
    base = (len(rooms) + 1) * (FLOOR + GAP) + 0.85
    figure, axes = plt.subplots(figsize=(11, 11 * (base + 4) / WIDTH), dpi=130)
    axes.set_xlim(-0.05, WIDTH + 0.05)
    axes.set_ylim(-0.05, base + 4)
    axes.axis("off")
    draw_journey(axes, base)
    draw_house(axes, rooms)
    figure.savefig(HERE / "architecture.png", bbox_inches="tight", facecolor="white")


if __name__ == "__main__":
    main()
