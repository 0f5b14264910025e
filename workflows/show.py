"""Pictures of a survey, or of what a catalog found on it: PNG, or a page with the objects to point at."""

from __future__ import annotations

import time
from dataclasses import dataclass

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.cones import ConeLike
from astroml_plugin.core import storage
from astroml_plugin.core.description import wrapped
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.core.results import Result
from astroml_plugin.core.settings import with_changes
from astroml_plugin.labelling.paint import colours
from astroml_plugin.labelling.pixels import PixelReader, recorded_source
from astroml_plugin.reporting.field import field_page
from astroml_plugin.reporting.html import document
from astroml_plugin.showing.objects import Objects, objects_in, region_lines
from astroml_plugin.showing.options import ShowOptions
from astroml_plugin.showing.picture import Showing, show_view
from astroml_plugin.showing.pixels import read_view
from astroml_plugin.showing.view import View, choose
from astroml_plugin.sources.stamps import open_source
from astroml_plugin.sources.survey import Survey

__all__ = ["ShowOptions", "ShowResult", "describe", "show"]

_BANDS = 5
"""Bands beyond which three are taken."""


@dataclass(frozen=True, repr=False)
class ShowResult(Result):
    """A picture that was written."""

    out: str
    """File or URL."""
    what: str
    """Description in words."""
    objects: int | None
    """Objects of the catalog in view; None without a catalog."""
    legend: tuple[str, ...]
    """Sentences that say what is seen."""
    seconds: float
    """Wall time."""


def show(
    path: Place,
    *,
    out: Place = "show.png",
    tile: str | None = None,
    cone: ConeLike | None = None,
    object_id: int | None = None,
    options: ShowOptions | None = None,
    **changes: object,
) -> ShowResult:
    """Draw a part of a survey, with the objects of a catalog where one is given.

    Args:
        path: folder or URL of a survey, or of a catalog that was made from one.
        out: .png file, or .html file in which objects answer to the mouse and the keyboard.
        tile: name of a tile.
        cone: right ascension, declination and radius: numbers in degrees, coordinates of astropy, or text.
        object_id: an object of the catalog.
        options: how it is drawn.
        changes: single fields of the options by name, for example `contrast=3`.

    Raises:
        InputError: no survey, no such tile or object, nothing there, or another suffix.
    """
    started = time.perf_counter()
    chosen = with_changes(ShowOptions, options, changes, "the options of show")
    path, out = text_of(path), text_of(out)
    kind = out.lower().rpartition(".")[2]
    if kind not in ("png", "html", "htm"):
        raise InputError(f"cannot write {storage.redact(out)}: use the suffix .png or .html")
    survey, catalog = _opened(path, chosen.source)
    view = choose(survey, catalog, tile=tile, cone=cone, object_id=object_id, image=chosen.image, side=chosen.size)
    pixels = read_view(survey, view, _bands(survey, chosen.bands))
    objects = None if catalog is None else objects_in(catalog, view, chosen.where)
    drawn = show_view(view, pixels, objects, contrast=chosen.contrast, names=chosen.names or None)
    _write(storage.absolute(out), kind, view, drawn, objects, path)
    if chosen.regions is not None:
        _write_regions(chosen.regions, view, objects)
    total, seconds = None if objects is None else objects.total, round(time.perf_counter() - started, 3)
    return ShowResult(storage.absolute(out), view.title, total, drawn.legend, seconds)


def _opened(path: str, source: Place | None) -> tuple[Survey, Catalog | None]:
    """The survey with the pixels, and the catalog where one was given."""
    catalog = None
    if storage.exists(storage.join(storage.absolute(path), "schema.json")):
        catalog = Catalog.open(path)
        recorded = recorded_source(catalog) if source is None else text_of(source)
        if recorded is None:
            raise InputError(f"{storage.redact(path)} does not say where its pixels are: give --source SURVEY")
        opened = PixelReader(recorded, catalog).source
    else:
        if not storage.exists(storage.join(storage.absolute(path), "zarr.json")):
            raise InputError(
                f"{storage.redact(path)} is no survey and no catalog (no zarr.json and no schema.json there): make a "
                f"survey with `ingest`, and a catalog of it with `infer`"
            )
        opened = open_source(path)
    if not isinstance(opened, Survey):
        raise InputError(f"{storage.redact(opened.url)} holds stamps, which lie in no field: `report` shows them")
    return opened, catalog


def _bands(survey: Survey, asked: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [band for band in asked if band not in survey.bands]
    if unknown:
        raise InputError(f"the survey has bands {', '.join(survey.bands)}, not {', '.join(unknown)}")
    if asked or len(survey.bands) <= _BANDS:
        return asked or survey.bands
    return tuple(survey.bands[places[0]] for places in reversed(colours(survey.bands)))


def _write(url: str, kind: str, view: View, drawn: Showing, objects: Objects | None, path: str) -> None:
    storage.write_atomic(url, drawn.png if kind == "png" else document(field_page(view, drawn, objects, path)).encode())


def _write_regions(to: Place, view: View, objects: Objects | None) -> None:
    if objects is None:
        raise InputError("--regions needs objects: give a catalog; `export SURVEY --to reg` writes those of tiles")
    storage.write_atomic(storage.absolute(to), "".join(region_lines(objects, view)).encode())


def describe(result: ShowResult) -> str:
    """The outcome for a terminal."""
    told = [line for one in result.legend for line in wrapped(one, "  ")]
    return "\n".join([*wrapped(f"{result.what} drawn into {result.out}"), *told])
