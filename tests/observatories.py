"""Writes docs/observatories.md: `python -m tests.observatories`."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.ingest.fits import list_planes
from tests.fits_layouts import Layout, layouts

PAGE = Path(__file__).parents[1] / "docs" / "observatories.md"

HEAD = """# Observatories

`ingest` and `info` recognise the files of these observatories: each plane gets the right role (image, mask, …), see
[what a plane is](formats.md#what-a-plane-is). If yours is not here, `astroml-plugin info FILE` shows what is
recognised, and `--roles` sets it by hand.

Bundles take pixels of other scales than those that they were trained at (0.2″): what counts is the PSF in pixels,
see [pixel scale](conventions.md#pixel-scale).

**How the table is made**: `python -m tests.observatories` writes small files in each layout, and then again with
the planes in reversed order, since position must not matter; "planes" counts both where a file has several. A test
checks every plane. It also checks real files (369 planes: 185 images, 104 PSFs, 40 weights, 31 masks, 4 standard
deviations, 3 variances, 2 others) and the test files that come with astropy (33 planes: 26 images, 7 others). None
is wrong. "unclear" means that `ingest` rightly refuses to choose and asks for `--roles`.

| layout | files | planes | wrong | roles |
|---|---|---|---|---|
"""


def row(name: str, files: list[Layout], folder: Path) -> tuple[str, int, int]:
    """(line of the table, planes, planes with a wrong role)."""
    truth: Counter[str] = Counter()
    planes = wrong = 0
    for number, layout in enumerate(files):
        for turned in (False, True)[: 1 + (len(layout.planes) > 1)]:
            place = folder / f"{number}{turned}"
            place.mkdir(parents=True)
            path, order = layout.write(place, turned=turned)
            found = list_planes(str(path))
            planes += len(order)
            wrong += sum(plane.role != true.role for plane, true in zip(found, order, strict=True))
        truth.update(plane.role for plane in layout.planes)
    roles = ", ".join(f"{role} {count}" for role, count in sorted(truth.items()))
    return f"| {name} | {len(files)} | {planes} | {wrong} | {roles} |", planes, wrong


def real(folder: Path) -> str:
    """Planes of the real files below a folder, by role."""
    roles: Counter[str] = Counter()
    for path in sorted(file for file in folder.rglob("*") if ".fit" in file.name):
        try:
            roles.update(plane.role for plane in list_planes(str(path)))
        except InputError:
            continue
    return ", ".join(f"{role} {count}" for role, count in sorted(roles.items()))


def main() -> None:
    """Write the page."""
    groups: dict[str, list[Layout]] = {}
    for layout in layouts():
        groups.setdefault(layout.observatory, []).append(layout)
    with tempfile.TemporaryDirectory() as folder:
        made = [row(name, files, Path(folder) / str(n)) for n, (name, files) in enumerate(groups.items())]
    total, wrong = sum(planes for _, planes, _ in made), sum(bad for _, _, bad in made)
    files = sum(len(files) for files in groups.values())
    lines = [*(line for line, _, _ in made), f"| **all** | {files} | {total} | {wrong} | |"]
    PAGE.write_text(HEAD + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
