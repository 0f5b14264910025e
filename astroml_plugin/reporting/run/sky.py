"""Where the objects of a catalog are: density, flags and failures on the sky, and the area as a MOC."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import numpy as np
from astropy_healpix import HEALPix

from astroml_plugin.core.typing import F64, I64
from astroml_plugin.reporting import skymap
from astroml_plugin.reporting.charts import Areas, Line
from astroml_plugin.reporting.pages import Block, Download, Missing, Note, Section
from astroml_plugin.reporting.run.subject import PRIMARY, RunSubject
from astroml_plugin.reporting.words import many, number, share
from astroml_plugin.sky.coverage import Outline, moc_bytes, moc_json, moc_of_cells
from astroml_plugin.sky.wcs import HEALPIX_ORDER
from astroml_plugin.sources.survey import Survey

_CELLS = 2500
"""Cells of a map at most."""

_FINE = 120_000
"""Cells that are looked at to choose the cells of the map."""

_FIRST = 8
"""HEALPix order of the first look: 0.05 square degrees."""

_FINEST = 18
_OUTLINES = 400
_FULL_SKY = 41252.96

TITLE = "Sky"


@dataclass(frozen=True)
class Cells:
    """Objects by HEALPix cell."""

    order: int
    index: I64
    """(n,) nested."""
    objects: I64
    flagged: I64

    def coarser(self, steps: int) -> Cells:
        """These objects in cells of a lower order."""
        index, place = np.unique(self.index >> (2 * steps), return_inverse=True)
        sums = [np.bincount(place, values, len(index)).astype(np.int64) for values in (self.objects, self.flagged)]
        return Cells(self.order - steps, index, *sums)

    @property
    def area(self) -> float:
        """Square degrees of the cells."""
        return float(len(self.index) * _FULL_SKY / (12 * 4**self.order))


def cells_of(subject: RunSubject) -> Cells:
    """Objects in at most `_CELLS` cells, as small as that allows and as hold a few objects on average."""
    found = _counted(subject, _FIRST)
    finer = 0
    while len(found.index) * 4 ** (finer + 1) <= _FINE and _FIRST + finer < _FINEST:
        finer += 1
    if finer and len(found.index) < _CELLS:
        found = _counted(subject, _FIRST + finer)
    while found.order > 0 and (len(found.index) > _CELLS or found.objects.sum() < 3 * len(found.index)):
        found = found.coarser(1)
    return found


def _counted(subject: RunSubject, order: int) -> Cells:
    shift = 2 * (HEALPIX_ORDER - order)
    table = subject.session.table(
        f"SELECT _healpix_29 >> {shift} AS cell, count(*) AS n, count(*) FILTER (flags <> 0) AS flagged "  # noqa: S608
        f"FROM catalog WHERE {PRIMARY} AND _healpix_29 IS NOT NULL GROUP BY cell ORDER BY cell"
    )
    columns = [table[name].to_numpy().astype(np.int64) for name in ("cell", "n", "flagged")]
    return Cells(order, *columns)


def section(subject: RunSubject) -> Section | Missing:
    """Maps of density and flags with the tiles that failed."""
    counts = subject.counts
    if not counts["objects"]:
        return Missing(TITLE, "the catalog has no rows")
    if not counts["placed"]:
        return Missing(TITLE, "no object has a position on the sky (images without world coordinates)")
    cells = cells_of(subject)
    ra, dec = _corners(cells)
    sky = skymap.SkyMap.about(ra, dec)
    failed, unknown = _failed(subject)
    unit, size = _unit(cells)
    blocks: list[Block] = list(_maps(cells, sky, (ra, dec), failed))
    if unknown:
        blocks.append(Note(unknown))
    text = (
        f"{many(counts['placed'], 'object')} in {many(len(cells.index), 'cell')} of HEALPix order {cells.order} "
        f"({number(cells.area / len(cells.index) / size)} {unit}s each); the cells cover {number(cells.area / size)} "
        f"{unit}s. North is up and East is left. Of all objects {share(counts['flagged'], counts['objects'])} "
        f"carry a flag."
    )
    if without := counts["objects"] - counts["placed"]:
        text += f" {many(without, 'object has', 'objects have')} no position and are not on the maps."
    if failed:
        text += f" Red outlines: {many(len(failed), 'tile')} that failed."
    return Section(TITLE, text, [*blocks, *_moc(cells)])


def _unit(cells: Cells) -> tuple[str, float]:
    """Name of a unit of area that suits the cells, and its square degrees."""
    return ("square degree", 1.0) if cells.area > 0.5 else ("square arcmin", 1 / 3600)


def _corners(cells: Cells) -> tuple[F64, F64]:
    """Right ascension and declination (n, 4) of the corners of cells, degrees."""
    grid = HEALPix(nside=2**cells.order, order="nested")
    lon, lat = grid.boundaries_lonlat(cells.index, step=1)
    return np.asarray(lon.to_value("deg")), np.asarray(lat.to_value("deg"))


def _maps(cells: Cells, sky: skymap.SkyMap, corners: tuple[F64, F64], failed: list[Outline]) -> list[Block]:
    x, y = sky.polygons(*corners)
    lines = _outlines(sky, failed)
    shown = tuple(
        np.concatenate([own.ravel(), *(getattr(line, axis) for line in lines)]) for own, axis in ((x, "x"), (y, "y"))
    )
    middle = [values.mean(1) for values in corners]
    unit, size = _unit(cells)
    density = cells.objects / (cells.area / len(cells.index) / size)
    part = cells.flagged / cells.objects
    texts = [
        f"near {a:.4f}, {d:+.4f}: {n:,} objects, {f:,} flagged"
        for a, d, n, f in zip(middle[0] % 360, middle[1], cells.objects.tolist(), cells.flagged.tolist(), strict=True)
    ]
    found: list[Block] = []
    for title, values, bar, log in (
        (f"Objects per {unit}", density, f"objects per {unit}", density.max() > 30 * density.min()),
        ("Part of the objects that carry a flag", part, "part with a flag", False),
    ):
        areas = Areas(x, y, values.astype(float), bar, log=bool(log), texts=texts)
        told = f"{title}: {number(float(values.min()))} to {number(float(values.max()))} in {len(values)} cells"
        found.append(skymap.chart(title, sky, [areas, *lines], (shown[0], shown[1]), alt=told))
    return found


def _outlines(sky: skymap.SkyMap, failed: list[Outline]) -> list[Line]:
    found = []
    for one in failed[:_OUTLINES]:
        ring = [0, 1, 2, 3, 0]
        x, y = sky.xy(one.ra[ring], one.dec[ring])
        found.append(Line(x, y, colour="#b03a2e", width=1.6, texts=[f"failed: {one.name}"] * 5))
    return found


def _failed(subject: RunSubject) -> tuple[list[Outline], str]:
    """Outlines of the tiles that failed, and a sentence where they cannot be drawn."""
    names = set(subject.failures["unit"].to_pylist())
    if not names:
        return [], ""
    if not isinstance(subject.source, Survey):
        why = subject.no_source or "stamps have no outlines"
        return [], f"{many(len(names), 'unit')} failed and cannot be drawn: {why}."
    found = [one for one in subject.source.outlines() if one.name in names]
    lacking = len(names) - len(found)
    return found, f"{many(lacking, 'unit')} that failed have no place on the sky." if lacking else ""


def _moc(cells: Cells) -> list[Block]:
    text = f"The cells as a MOC of order {cells.order}, for Aladin and TOPCAT"
    found: list[Block] = [Download("cells.moc.json", moc_json(cells.index, cells.order), f"{text} (JSON)")]
    if importlib.util.find_spec("mocpy") is not None:
        data = moc_bytes(moc_of_cells(cells.index, cells.order), "fits")
        found.append(Download("cells.moc.fits", data, f"{text} (FITS)"))
    return found
