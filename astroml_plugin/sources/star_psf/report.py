"""Quality of PSFs from stars: a small table per image in the folder `star_psf` of a survey, and sentences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.core import storage
from astroml_plugin.sources.star_psf.quality import Quality, Zone

FOLDER = "star_psf"

_WHOLE = {"x0", "y0", "x1", "y1", "stars"}
_SCHEMA = pa.schema(
    [
        *[("image", pa.string()), ("band", pa.string()), ("zone", pa.int32())],
        *[(item.name, pa.int32() if item.name in _WHOLE else pa.float64()) for item in fields(Zone)],
        *[("order", pa.int32()), ("rejected", pa.string()), ("doubt", pa.string())],
    ]
)


def write(survey: str, image: str, found: Mapping[str, Quality]) -> None:
    """Keep what is known of an image's PSF in each band, beside the survey's tiles."""
    folder = storage.join(survey, FOLDER)
    rows = [
        {"image": image, "band": band, "zone": number, **zone, **_shared(quality)}
        for band, quality in found.items()
        for number, zone in enumerate(quality.rows())
    ]
    if not storage.exists(storage.join(folder, "zarr.json")):  # a group, so that zarr lists the store without warnings
        storage.write_json(
            storage.join(folder, "zarr.json"), {"zarr_format": 3, "node_type": "group", "attributes": {}}
        )
    storage.write_table(storage.join(folder, f"{image}.parquet"), pa.Table.from_pylist(rows, schema=_SCHEMA))


def _shared(quality: Quality) -> dict[str, Any]:
    return {"order": quality.order, "rejected": json.dumps(quality.rejected), "doubt": quality.doubt}


def read(survey: str) -> pa.Table:
    """PSFs from stars of a survey: one row per image, band and zone, zone 0 the whole image; no row where none are.

    Columns: image; band; zone; x0, y0, x1, y1 (pixels of the image); stars; fwhm (pixels), e1, e2 of the PSF in the
    middle; fwhm_off (relative), e1_off, e2_off: mean of stars that were left out less what the PSF foretells;
    fwhm_scatter, e_scatter from star to star; order; rejected (JSON: why -> how many); doubt.
    """
    folder = storage.join(survey, FOLDER)
    names = storage.list_files(folder, ".parquet")
    tables = [storage.read_table(storage.join(folder, name)).cast(_SCHEMA) for name in names]
    return pa.concat_tables(tables) if tables else _SCHEMA.empty_table()


def note(found: Sequence[Quality]) -> str:
    """One sentence on the PSFs of images."""
    whole = [quality.whole for quality in found]
    many = f"{len(found)} {'band' if len(found) == 1 else 'bands'} of images"
    rejected = _range([sum(quality.rejected.values()) for quality in found], "d")
    counts, fwhm = _range([quality.stars for quality in found], "d"), _range([zone.fwhm for zone in whole], ".2f")
    off, scatter = (100 * _worst([getattr(zone, name) for zone in whole]) for name in ("fwhm_off", "fwhm_scatter"))
    shape = _worst([zone.e_scatter for zone in whole])
    return (
        f"the PSF of {many} is from stars ({counts} each, {rejected} objects rejected): FWHM {fwhm} pixels; stars left "
        f"out are off by up to {off:.1f} % in FWHM, and scatter by {scatter:.1f} % and by {shape:.3f} in e1 and e2; "
        "`info` shows it"
    )


def _worst(values: Sequence[float]) -> float:
    return float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else float("nan")


def _range(values: Sequence[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def facts(table: pa.Table) -> dict[str, str]:
    """Lines for a description: a line per image and band, and one per zone where there are few."""
    rows = table.to_pylist()
    shown = rows if len(rows) <= _MOST_LINES else [row for row in rows if row["zone"] == 0]
    told = {_name(row): _line(row) for row in shown[:_MOST_LINES]}
    if len(told) < len(rows):
        told["PSF from stars"] = f"{len(rows) - len(told)} more rows in Survey.star_psf()"
    return told


_MOST_LINES = 36


def _name(row: Mapping[str, Any]) -> str:
    if row["zone"] == 0:
        return f"PSF of {row['image']} {row['band']}"
    return f"  {row['image']} {row['band']} x {row['x0']}-{row['x1']} y {row['y0']}-{row['y1']}"


def _line(row: Mapping[str, Any]) -> str:
    text = (
        f"{row['stars']} stars; FWHM {row['fwhm']:.2f} px, e {row['e1']:+.3f} {row['e2']:+.3f}; left out: "
        f"FWHM {100 * row['fwhm_off']:+.1f} ± {100 * row['fwhm_scatter']:.1f} %, "
        f"e {row['e1_off']:+.3f} {row['e2_off']:+.3f} ± {row['e_scatter']:.3f}"
    )
    if row["zone"]:
        return text
    rejected = ", ".join(f"{number} {why}" for why, number in json.loads(row["rejected"]).items() if number)
    return f"{text}; order {row['order']}; rejected: {rejected}"


def doubts(table: pa.Table) -> list[str]:
    """One sentence for each PSF that may be poor."""
    return [
        f"the PSF from stars of {row['image']} {row['band']} is poor: {row['doubt']}"
        for row in table.to_pylist()
        if row["zone"] == 0 and row["doubt"]
    ]
