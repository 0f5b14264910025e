"""Sections about a survey: where its tiles are, and noise, depth, sky, PSF and masks per tile and band."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from astroml_plugin.core import storage
from astroml_plugin.core.typing import F64
from astroml_plugin.reporting import skymap
from astroml_plugin.reporting.charts import Areas, Axis, Chart
from astroml_plugin.reporting.pages import Block, Commands, Maker, Missing, Note, Section, Table
from astroml_plugin.reporting.survey.finding import find_objects
from astroml_plugin.reporting.survey.subject import SAMPLE, SurveySubject, depth
from astroml_plugin.reporting.words import many, number
from astroml_plugin.sources.quality import CLEAR_OF_ZERO
from astroml_plugin.sources.tile_table import TileInfo

TILES, BANDS, NOISE, PSF, MASKS, ORIGIN, NEXT = (
    "Tiles",
    "Bands",
    "Noise, depth and sky",
    "PSF",
    "Pixels that cannot be used",
    "Provenance",
    "What to do next",
)
_BANDS = 8
_LISTED = 60
_APERTURE = np.pi * 25
"""Pixels of the aperture of a depth: a radius of 5 pixels."""


def facts(subject: SurveySubject) -> list[tuple[str, str]]:
    """Numbers below the page's title."""
    survey = subject.survey
    images = len(set(subject.index["image"].to_pylist()))
    found = [("tiles", f"{subject.count:,}"), ("images", f"{images:,}"), ("bands", ", ".join(survey.bands[:8]))]
    scale = survey.pixel_scale
    return [*found, ("arcsec per pixel", "–" if scale is None else f"{scale:.4g}")]


def _maps(
    subject: SurveySubject, title: str, bar: str, values: F64, names: Sequence[str], *, log: bool = False
) -> list[Block]:
    """Tiles coloured by a value: on the sky where they have world coordinates, else on the pixels of their image."""
    infos = subject.tiles
    texts = [f"{name}: {number(float(value))}" for name, value in zip(names, values, strict=True)]
    known = values[np.isfinite(values)]
    if len(known) and known.min() == known.max():
        title = f"{title}: {number(float(known[0]))} everywhere"
    outlines = {one.name: one for one in subject.survey.outlines()} if any(info.header for info in infos) else {}
    on_sky = np.array([info.name in outlines for info in infos])
    blocks: list[Block] = []
    if on_sky.any():
        ra, dec = (
            np.array([getattr(outlines[i.name], axis) for i in infos if i.name in outlines]) for axis in ("ra", "dec")
        )
        sky = skymap.SkyMap.about(ra, dec)
        x, y = sky.polygons(ra, dec)
        areas = Areas(
            x, y, values[on_sky], bar, log, [text for text, there in zip(texts, on_sky, strict=True) if there]
        )
        blocks.append(skymap.chart(title, sky, [areas], (x, y)))
    if not on_sky.all():
        blocks.append(
            _pixel_map(
                title,
                bar,
                [i for i in infos if i.name not in outlines],
                values[~on_sky],
                [text for text, there in zip(texts, on_sky, strict=True) if not there],
                log,
            )
        )
    return blocks


def _pixel_map(title: str, bar: str, infos: Sequence[TileInfo], values: F64, texts: Sequence[str], log: bool) -> Chart:
    """Images without world coordinates side by side, in pixels."""
    left, start = 0.0, {}
    for info in infos:
        if info.image not in start:
            start[info.image] = left
            left += 1.1 * info.image_shape[1]
    boxes = [(start[i.image] + i.inner.x0, start[i.image] + i.inner.x1, i.inner.y0, i.inner.y1) for i in infos]
    x = np.array([[a, b, b, a] for a, b, _, _ in boxes], float)
    y = np.array([[c, c, d, d] for _, _, c, d in boxes], float)
    return Chart(
        f"{title} (pixels, {many(len(start), 'image')} without world coordinates)",
        Axis("x [pixels]"),
        Axis("y [pixels]"),
        [Areas(x, y, values, bar, log, texts, True)],
        380,
        equal=True,
        legend=False,
    )


def tiles(subject: SurveySubject) -> Section | Missing:
    """Where the tiles are, coloured by the number of bands that they have."""
    if not subject.count:
        return Missing(TILES, "the survey has no tiles yet")
    infos = subject.tiles
    bands = np.array([sum(info.has_band.get(band, True) for band in subject.survey.bands) for info in infos], float)
    text = (
        f"{many(subject.count, 'tile')} of {subject.survey.tile_size} × {subject.survey.tile_size} pixels, "
        f"{subject.survey.halo} of them shared on each side. Drawn are the pixels that each tile owns"
        f"{'; on the sky North is up and East is left' if any(info.header for info in infos) else ''}."
    )
    if len(infos) < subject.count:
        text += f" {len(infos):,} of them are drawn, evenly chosen."
    blocks = _maps(subject, "Bands of each tile", "bands", bands, [info.name for info in infos])
    lacking = int((bands < len(subject.survey.bands)).sum())
    if lacking:
        blocks.append(
            Note(f"{many(lacking, 'tile lacks', 'tiles lack')} a band: bundles that need it give nulls there.")
        )
    return Section(TILES, text, blocks)


def bands(subject: SurveySubject) -> Section | Missing:
    """Units, zero points and what is stored, by band."""
    if not subject.count:
        return Missing(BANDS, "the survey has no tiles yet")
    rows = []
    for band in subject.survey.bands:
        units = sorted({info.units.get(band, "") or "not known" for info in subject.tiles})
        zeros = [one for info in subject.tiles if (one := info.zero_points.get(band)) is not None]
        without = len(subject.tiles) - len(zeros)
        there = sum(info.has_band.get(band, True) for info in subject.tiles)
        zero = "not known" if not zeros else _range(np.array(zeros), ".3f")
        rows.append([band, f"{there:,}", ", ".join(units[:3]), zero, f"{without:,}"])
    stored = [
        name for name in ("variance", "mask", "psf") if any(getattr(info, f"has_{name}") for info in subject.tiles)
    ]
    text = f"Stored beside the pixels: {', '.join(stored) or 'nothing'}."
    if "variance" not in stored:
        text += " Without a variance errors come from the scatter of the pixels (NO_VARIANCE)."
    head = ("band", "tiles", "unit", "zero point (AB)", "tiles without one")
    return Section(BANDS, text, [Table(head, rows, "Bands")])


def _range(values: F64, form: str) -> str:
    low, high = format(float(values.min()), form), format(float(values.max()), form)
    return low if low == high else f"{low} to {high}"


def _each(subject: SurveySubject, value: Callable[[TileInfo, str], float]) -> F64:
    """(tile, band) of a number of each tile's band."""
    return np.array([[value(info, band) for band in subject.survey.bands] for info in subject.tiles], float).reshape(
        len(subject.tiles), -1
    )


def noise(subject: SurveySubject) -> Section | Missing:
    """Noise, depth and sky level of each tile, measured when it was brought in."""
    if not subject.count:
        return Missing(NOISE, "the survey has no tiles yet")
    measured = _each(subject, lambda info, band: info.quality[band].noise if band in info.quality else np.nan)
    if not np.isfinite(measured).any():
        return Missing(NOISE, "the survey was ingested by a version (or way) that measured no noise")
    deep = _each(
        subject,
        lambda info, band: (
            depth(info.quality[band].noise, info.zero_points.get(band), _APERTURE) if band in info.quality else np.nan
        ),
    )
    left = _each(subject, lambda info, band: info.quality[band].sky_left if band in info.quality else np.nan)
    blocks: list[Block] = []
    names = [info.name for info in subject.tiles]
    rows = []
    for place, band in enumerate(subject.survey.bands):
        shown, what = (
            (deep, "5 sigma depth [AB mag]") if np.isfinite(deep[:, place]).any() else (measured, "noise of a pixel")
        )
        if place < _BANDS and len(subject.tiles) > 1:
            blocks += _maps(subject, f"{band}: {what}", what, shown[:, place], names)
        cells = [_spread(values[:, place]) for values in (measured, deep, left)]
        off = int((np.abs(left[:, place]) > CLEAR_OF_ZERO).sum())
        rows.append([band, *cells, f"{off:,}"])
    head = ("band", "noise of a pixel", "5σ depth, AB (5 pixel radius)", "level left, in noises", "tiles off zero")
    blocks.append(Table(head, rows, "Least, median and most of the tiles"))
    text = (
        "The noise is that of differences of neighbouring pixels. Where pixels were resampled it is too small, and the "
        "depth too optimistic."
    )
    return Section(
        NOISE,
        text,
        blocks,
        f"A level beyond {CLEAR_OF_ZERO:g} noises from 0 is no sky at 0: objects found there are OUT_OF_DOMAIN.",
    )


def _spread(values: F64) -> str:
    known = values[np.isfinite(values)]
    if not len(known):
        return "–"
    return " / ".join(number(float(v)) for v in (known.min(), np.median(known), known.max()))


def psf(subject: SurveySubject) -> Section | Missing:
    """FWHM of the PSF in the middle of a sample of tiles, and how good PSFs from stars are."""
    without = sum(not info.has_psf for info in subject.tiles)
    if without == len(subject.tiles):
        return Missing(PSF, "no PSF is stored: shapes and star fluxes will carry NO_PSF")
    blocks: list[Block] = []
    names = [info.name for info in subject.tiles]
    rows = []
    for place, band in enumerate(subject.survey.bands):
        widths = np.array([subject.fwhm[name][place] if name in subject.fwhm else np.nan for name in names])
        if np.isfinite(widths).any() and len(names) > 1 and place < _BANDS:
            blocks += _maps(subject, f"{band}: FWHM of the PSF [pixels]", "FWHM [pixels]", widths, names)
        rows.append([band, _spread(widths), _spread(widths * (subject.survey.pixel_scale or np.nan))])
    blocks.append(Table(("band", "FWHM [pixels]", "FWHM [arcsec]"), rows, "Least, median and most of the tiles"))
    whole = [row for row in subject.survey.star_psf().to_pylist() if row["zone"] == 0]
    if whole:
        blocks.append(_stars(whole))
    text = f"{many(without, 'tile has', 'tiles have')} no PSF. {len(subject.fwhm):,} tiles were looked at."
    return Section(PSF, text, blocks)


def _stars(whole: Sequence[Mapping[str, Any]]) -> Table:
    """Quality of PSFs that were made from stars, by image and band."""
    keys = ("fwhm", "e1", "e2", "fwhm_off")
    rows = [
        [row["image"], row["band"], number(row["stars"]), *(number(row[key]) for key in keys), row["doubt"] or ""]
        for row in whole[:_LISTED]
    ]
    head = ("image", "band", "stars", "FWHM [pixels]", "e1", "e2", "stars left out less foretold FWHM", "doubt")
    return Table(head, rows, "PSFs from stars", max(len(whole) - _LISTED, 0))


def masks(subject: SurveySubject) -> Section | Missing:
    """Part of each tile's own pixels that cannot be used."""
    if not subject.count:
        return Missing(MASKS, "the survey has no tiles yet")
    found, problems = subject.unusable
    blocks: list[Block] = [Note(f"A tile cannot be read: {one}", bad=True) for one in problems[:5]]
    names = [info.name for info in subject.tiles]
    part = np.array([found[name].mean() if name in found else np.nan for name in names])
    if np.isfinite(part).any() and len(names) > 1:
        blocks += _maps(subject, "Part of the pixels that cannot be used", "part", part, names)
    values = np.array(list(found.values())).reshape(len(found), -1)
    rows = [[band, _spread(values[:, place])] for place, band in enumerate(subject.survey.bands)] if len(found) else []
    blocks.append(Table(("band", "least / median / most of the tiles"), rows, "Part that cannot be used"))
    text = (
        f"Masked, not finite, or without a variance above 0. Pixels of {many(len(found), 'tile')} of "
        f"{subject.count:,} were read"
        f"{f' ({SAMPLE} at most, evenly chosen)' if len(found) < subject.count else ''}."
    )
    return Section(MASKS, text, blocks)


def origin(subject: SurveySubject) -> Section:
    """Where the tiles come from."""
    survey = subject.survey
    files: dict[str, int] = {}
    for info in subject.tiles:
        files[info.source] = files.get(info.source, 0) + 1
    rows = [[name, f"{count:,}"] for name, count in list(files.items())[:_LISTED]]
    about = [["store", storage.redact(survey.url)], ["id", survey.id], ["arrays", ", ".join(survey.array_names)]]
    about.append(["mask bits", json.dumps(survey.mask_bits)])
    return Section(
        ORIGIN,
        "",
        [
            Table(("what", "value"), about, "Store"),
            Table(("file", "tiles"), rows, "Files", max(len(files) - _LISTED, 0), folded=True),
        ],
    )


def next_steps(subject: SurveySubject) -> Section:
    """Commands to go on with."""
    place = shlex.quote(storage.redact(subject.survey.url))
    lines = [("Look at the pixels", f"astroml-plugin show {place} --out survey.png")]
    words = find_objects(storage.redact(subject.survey.url), subject.survey.halo)
    what = "Find and measure every object"
    if words[0] == "ingest":
        what = (
            f"Objects are found in tiles of a larger halo than {subject.survey.halo} pixels: bring the images in again"
        )
    lines.append((what, shlex.join(["astroml-plugin", *words])))
    lines.append(("The tiles as regions for DS9", f"astroml-plugin export {place} --to reg --out tiles.reg"))
    return Section(NEXT, "", [Commands(lines)])


MAKERS = (
    Maker(TILES, tiles),
    Maker(BANDS, bands),
    Maker(NOISE, noise),
    Maker(PSF, psf),
    Maker(MASKS, masks),
    Maker(ORIGIN, origin),
    Maker(NEXT, next_steps),
)
"""The sections of a survey's page, in their order. A section is added here."""
