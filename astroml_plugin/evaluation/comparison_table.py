"""Methods side by side: a table in Markdown, and a picture of the intervals."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure


def markdown(table: Sequence[dict[str, Any]], names: Sequence[str], form: str) -> str:
    """A Markdown table of records, one per method: the named figures with 95 % intervals, in a format, and times."""
    heads = ["method", *(name.replace("_", " ") for name in names), "training s", "objects/s"]
    lines = [heads, ["---", *("---:" for _ in heads[1:])]]
    for record in table:
        spent = record["train_seconds"]
        timing = ["" if spent is None else f"{spent:.1f}", f"{record['objects_per_second']:,.0f}"]
        lines.append([record["method"], *(_cell(record[name], form) for name in names), *timing])
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths)] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)


def _cell(value: dict[str, float], form: str) -> str:
    shown = f"{value['value']:{form}}"
    return f"{shown} ({value['low']:{form}}-{value['high']:{form}})" if "low" in value else shown


def figure(table: Sequence[dict[str, Any]], names: Sequence[str], networks: Container[str]) -> Any:
    """Methods against the named figures, with their intervals; the best method on top, networks in red."""
    drawing = Figure(figsize=(11, 1.4 + 0.28 * len(table)), layout="constrained")
    panels = drawing.subplots(1, len(names), sharey=True, squeeze=False)[0]
    places = np.arange(len(table))[::-1]
    colours = ["#c0392b" if record["method"] in networks else "#1b4f72" for record in table]
    for panel, name in zip(panels, names):
        values = np.array([[record[name][key] for key in ("low", "value", "high")] for record in table])
        for place, (low, value, high), colour in zip(places, values, colours):
            panel.plot([low, high], [place, place], color=colour, linewidth=1.5)
            panel.plot(value, place, "o", color=colour, markersize=5)
        panel.set(xlabel=name.replace("_", " "))
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(places, [record["method"] for record in table])
    drawing.suptitle("95 % intervals of the same objects; networks in red", fontsize=9)
    return drawing
