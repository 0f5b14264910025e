"""Content of a page of pictures, without HTTP: a ranking, its pictures, and the scores of one person."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import astropy.units as u
from astropy.coordinates import Angle

from astroml_plugin.catalog import Catalog, Column, columns_of
from astroml_plugin.catalog.ranking import Ranked, like, top
from astroml_plugin.catalog.ranking.index import LatentIndex
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError, InputError
from astroml_plugin.core.flags import flag_names
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.labelling.paint import Painter, png
from astroml_plugin.labelling.pixels import PixelReader, recorded_source
from astroml_plugin.labelling.relearn import OrderOptions, rerank
from astroml_plugin.labelling.scorefile import ScoreFile

LARGEST_LIST = 5000
_SAMPLE = 24
"""Stamps that the noise is measured on."""

_PICTURES = 2048
_SIDES = (8, 512)
_CONTRASTS = (0.05, 50.0)
_HIDDEN = frozenset({"rank", "rank_score", "folded", "object_id", "image", "tile", "x", "y", "ra", "dec", "primary"})


@dataclass(frozen=True)
class SessionSettings(OrderOptions):
    """Objects that are ranked, and the order."""

    top: int = 200
    """Objects of a list."""
    index: bool = False
    """Answer `like` from an index (faiss) that the first question builds, instead of reading the catalog each time."""
    size: int | None = None
    """Side of a picture in pixels; default that of stored stamps, else 64."""


class Session:
    """One person at one catalog. Safe in threads.

    Args:
        catalog: path or URL.
        scores: the file that scores go to.
        settings: what is ranked.
        source: URL of the pixels; default the source of the catalog's last run. Where it cannot be opened, `no_pixels`
            says why and everything else works; a source that was named must open.

    Raises:
        InputError: no catalog, no such score, or a named source that is not the catalog's.
    """

    def __init__(
        self, catalog: Place, scores: ScoreFile, settings: SessionSettings | None = None, source: Place | None = None
    ) -> None:
        self.catalog, self.scores = Catalog.open(catalog), scores
        self.settings = settings or SessionSettings()
        if not 1 <= self.settings.top <= LARGEST_LIST:
            raise InputError(f"a page of {self.settings.top} objects: --top must be 1 to {LARGEST_LIST}")
        if self.settings.size is not None:
            _within(self.settings.size, _SIDES, "--size")
        self._lock = threading.RLock()
        self._rows: dict[int, dict[str, Any]] = {}
        self._index: LatentIndex | None = None
        self._pictures: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()
        self.version = 0
        self.kind = "score"
        self.ranking = self._ranked("score", None)
        self._remember()
        self.reader, self.no_pixels = _opened(source, self.catalog)
        self._painter: Painter | None = None

    # Rankings

    def rank(self, kind: str, object_id: int | None = None) -> dict[str, Any]:
        """Show another ranking: `score`, `learned` (from all scores so far) or `like` an object.

        Raises:
            InputError: it cannot be made; the present one stays.
        """
        with self._lock:
            ranking = self._ranked(kind, object_id)
            self.ranking, self.kind = ranking, kind
            self.version += 1
            self._remember()
            return self.state()

    def _ranked(self, kind: str, object_id: int | None) -> Ranked:
        chosen = self.settings
        common: dict[str, Any] = {"where": chosen.where, "fold_radius": chosen.fold_radius}
        space: dict[str, Any] = {"latent": chosen.latent, "features": chosen.features}
        if kind == "score":
            return top(self.catalog.url, chosen.top, score=chosen.score, **common)
        if kind == "learned":
            self.scores.refresh()
            options = {**common, **space, "score": chosen.score, "learner": chosen.learner}
            return rerank(self.catalog.url, self.scores, chosen.top, **options)
        if kind == "like" and object_id is not None:
            if not chosen.index:
                return like(self.catalog.url, object_id, chosen.top, **common, **space)
            if self._index is None:
                self._index = LatentIndex.build(self.catalog.url, where=chosen.where, **space)
            return self._index.like(object_id, chosen.top, fold_radius=chosen.fold_radius)
        raise InputError(f"no ranking {kind!r}: there are score, learned and like OBJECT_ID")

    def _remember(self) -> None:
        for row in self.ranking.table.to_pylist():
            self._rows[row["object_id"]] = row

    # What the page shows

    def state(self) -> dict[str, Any]:
        """Everything but pictures, as plain values. Ids are text: JavaScript has no 64-bit integers."""
        with self._lock:
            table = self.ranking.table
            columns = {column.name: column for column in columns_of(table.schema)}
            return {
                "catalog": storage.redact(self.catalog.url),
                "version": self.version,
                "kind": self.kind,
                "by": self.ranking.by,
                "objects": self.ranking.objects,
                "ranked": self.ranking.ranked,
                "list": [_object(row, columns) for row in table.to_pylist()],
                "noPixels": self.no_pixels,
                "side": self.side,
                "stored": self.reader is not None and self.reader.source.kind == "stamps",
                "pixelScale": None if self.reader is None else self.reader.source.pixel_scale,
                "bands": list(self.reader.bands) if self.reader is not None else [],
                "scoresFile": str(self.scores.path),
                **self.scored(),
            }

    def scored(self) -> dict[str, Any]:
        """The scores that count: this person's, and those of others."""
        self.scores.refresh()
        mine: dict[str, dict[str, Any]] = {}
        others: dict[str, list[dict[str, Any]]] = {}
        for score in self.scores.all():
            if score.who == self.scores.who:
                mine[str(score.object_id)] = {"score": score.score, "note": score.note}
            else:
                said = {"score": score.score, "note": score.note, "who": score.who}
                others.setdefault(str(score.object_id), []).append(said)
        return {"who": self.scores.who, "mine": mine, "others": others}

    def add(self, object_id: int, score: int, note: str = "") -> dict[str, Any]:
        """Score an object of a list that was shown.

        Raises:
            InputError: another object, or no score.
        """
        if object_id not in self._rows:
            raise InputError(f"object {object_id} is on no list that this page has shown")
        self.scores.add(object_id, score, note)
        return self.scored()

    def undo(self) -> dict[str, Any]:
        """Take back this person's last score; `undone` is its object."""
        undone = self.scores.undo()
        return {**self.scored(), "undone": None if undone is None else str(undone)}

    # Pictures

    @property
    def side(self) -> int:
        """Side of a picture in pixels."""
        return self.settings.size or (64 if self.reader is None else self.reader.side)

    def picture(self, object_id: int, side: int | None = None, contrast: float = 1.0, own: bool = False) -> bytes:
        """PNG of an object of a list that was shown.

        Raises:
            AstromlError: no pixels, or none that can be read; the sentence says why.
        """
        if self.reader is None:
            raise InputError(self.no_pixels or "no pixels")
        row = self._rows.get(object_id)
        if row is None:
            raise InputError(f"object {object_id} is on no list that this page has shown")
        side = _within(side or self.side, _SIDES, "the side of a picture")
        contrast = _within(contrast, _CONTRASTS, "the contrast")
        key = (object_id, side, contrast, own)
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
                return self._pictures[key]
        image, valid = self.reader.stamp(row, side)
        data = png(self._paint().picture(image, valid, contrast=contrast, own=own))
        with self._lock:
            self._pictures[key] = data
            while len(self._pictures) > _PICTURES:
                self._pictures.popitem(last=False)
        return data

    def _paint(self) -> Painter:
        """The painter of this source, from the noise of the first stamps."""
        with self._lock:
            if self._painter is None:
                assert self.reader is not None
                images = []
                for row in self.ranking.table.slice(0, _SAMPLE).to_pylist():
                    try:
                        images.append(self.reader.stamp(row, self.side)[0])
                    except AstromlError:
                        continue
                self._painter = Painter.of(images, self.reader.bands)
            return self._painter


def _opened(source: Place | None, catalog: Catalog) -> tuple[PixelReader | None, str | None]:
    """(reader, None), or (None, why there are no pixels)."""
    if source is not None:
        return PixelReader(text_of(source), catalog), None
    recorded = recorded_source(catalog)
    if recorded is None:
        return None, "the catalog does not say where its pixels are: start again with --source SURVEY or STAMPS"
    try:
        return PixelReader(recorded, catalog), None
    except Exception as error:  # noqa: BLE001 - an object store's client raises whatever it likes; numbers go without
        return None, f"no stamps at hand: {storage.redact(str(error))} Start again with --source to show them."


def _within(value: Any, bounds: tuple[float, float], what: str) -> Any:
    if not bounds[0] <= value <= bounds[1]:
        raise InputError(f"{what} is {value:g}, it must be {bounds[0]:g} to {bounds[1]:g}")
    return value


def _object(row: dict[str, Any], columns: dict[str, Column]) -> dict[str, Any]:
    """One object of the list as plain values."""
    return {
        "id": str(row["object_id"]),
        "rank": row["rank"],
        "score": row["rank_score"],
        "folded": row["folded"],
        "image": row["image"],
        "tile": row["tile"],
        "x": _plain(row["x"]),
        "y": _plain(row["y"]),
        "ra": _plain(row["ra"]),
        "dec": _plain(row["dec"]),
        "sky": sexagesimal(row["ra"], row["dec"]),
        "flags": list(flag_names(row["flags"])),
        "values": [
            {"name": name, "value": _shown(name, value), "unit": columns[name].unit, "about": columns[name].description}
            for name, value in row.items()
            if name not in _HIDDEN and name != "flags"
        ],
    }


def sexagesimal(ra: float | None, dec: float | None) -> str:
    """`hh:mm:ss.ss ±dd:mm:ss.s`; empty without a position."""
    if ra is None or dec is None or not (math.isfinite(ra) and math.isfinite(dec)):
        return ""
    hours = Angle(ra, u.deg).to_string(u.hour, sep=":", precision=2, pad=True)
    degrees = Angle(dec, u.deg).to_string(u.deg, sep=":", precision=1, pad=True, alwayssign=True)
    return f"{hours} {degrees}"


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shown(name: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if name.endswith("_flags") and isinstance(value, int):
        return ", ".join(flag_names(value)) or "none"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
