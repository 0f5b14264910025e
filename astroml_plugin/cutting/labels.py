"""Surveys with a table of labels as sources of stamps, for the time of one piece of work."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from astroml_plugin.catalog.objects import ObjectSettings
from astroml_plugin.catalog.objects.in_memory import file_of
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place
from astroml_plugin.core.settings import with_changes
from astroml_plugin.cutting.by_id import placed_by_id
from astroml_plugin.cutting.options import CutoutOptions
from astroml_plugin.cutting.viewing import Viewed, make_view, open_stamps
from astroml_plugin.sources.survey import Survey

_ASKED = {"labels": "labels", "objects": "places"}
"""Option of a verb -> what its table tells."""

OptionsFor = Callable[[Survey], CutoutOptions]
"""Size and bands of the stamps that are wanted of a survey."""


@dataclass(frozen=True)
class LabelTable(ObjectSettings):
    """Labels of objects of a Survey, and how their table is read."""

    labels: Any = None
    """Table of labels of objects of the Surveys among the data: path or URL, or an astropy, pandas or Arrow table, with
    ids, positions and label columns. Several: one per Survey, in their order; one is for all."""
    catalog: Place | None = None
    """A catalog of the Survey that says where the objects are, for a table of ids and labels without positions."""
    size: int = 0
    """Side in pixels of the stamps that are cut around the objects; 0: what recipe or bundle says, else 64."""


@dataclass(frozen=True)
class Labelled:
    """Sources of stamps."""

    urls: tuple[str, ...]
    """Stamps, and a view of each survey."""
    notes: tuple[str, ...] = ()
    """Sentences about objects without a stamp, and about tiles."""


@contextmanager
def labelled(
    data: Sequence[str], labelling: Mapping[str, Any], options: OptionsFor, option: str = "labels"
) -> Iterator[Labelled]:
    """Sources of stamps: surveys are views of their labelled objects, which go at the end.

    Args:
        data: Stamps, views and Surveys.
        labelling: fields of `LabelTable`.
        options: which stamps are wanted of a survey; `size` of the labels goes first.
        option: of the verb, gives the table.

    Raises:
        InputError: a survey without labels, labels without a survey, or a table that cannot be used.
    """
    given = with_changes(LabelTable, None, labelling, "the labels")
    opened = [open_stamps(url) for url in data]
    surveys = [source for source in opened if isinstance(source, Survey)]
    tables = _tables(given, len(surveys))
    if not surveys:
        if tables:
            raise InputError(
                f"{option} belong to the objects of a Survey, and {', '.join(map(storage.redact, data))} holds stamps, "
                f"which have their own: leave the {option} away"
            )
        yield Labelled(tuple(data))
        return
    if not tables:
        raise InputError(
            f"{storage.redact(surveys[0].url)} is a survey: give the {_ASKED[option]} of its objects "
            f"(--{option} TABLE), or stamps"
        )
    with tempfile.TemporaryDirectory(prefix="astroml-labelled-") as folder:
        views = [
            _view(survey, table, given, options(survey), f"{folder}/{number}")
            for number, (survey, table) in enumerate(zip(surveys, tables, strict=True))
        ]
        left = iter(views)
        urls = [next(left).stamps.url if isinstance(source, Survey) else source.url for source in opened]
        yield Labelled(tuple(urls), _notes(views, shared=len(tables) > 1 and len({id(one) for one in tables}) == 1))


def _tables(given: LabelTable, surveys: int) -> list[Any]:
    """A table for each survey; none where none is given."""
    if given.labels is None:
        return []
    tables = list(given.labels) if isinstance(given.labels, list | tuple) else [given.labels]
    tables = tables * surveys if len(tables) == 1 and surveys else tables
    if surveys and len(tables) != surveys:
        raise InputError(f"{len(tables)} tables of labels for {surveys} surveys: give one for all, or one for each")
    return tables


def _view(survey: Survey, table: Any, given: LabelTable, options: CutoutOptions, folder: str) -> Viewed:
    settings = ObjectSettings(**{one.name: getattr(given, one.name) for one in fields(ObjectSettings)})
    options = replace(options, size=given.size) if given.size else options
    name = storage.redact(survey.url).rstrip("/").rpartition("/")[2].removesuffix(".zarr")
    url, called = file_of(table, folder), ""
    more: list[str] = []
    if url is table or isinstance(table, str):
        called = storage.redact(url)
    if given.catalog is not None:
        table, more = placed_by_id(url, settings, given.catalog, survey)
        settings = ObjectSettings(frame="pixel")
    found = make_view(survey, table, settings, options, f"{folder}/{name}", called)
    return replace(found, notes=(*more, *found.notes))


def _notes(views: Sequence[Viewed], *, shared: bool) -> tuple[str, ...]:
    """Sentences about all views; of a table for all, about the objects that lie on none of the surveys."""
    notes = [note for view in views for note in view.notes]
    if not shared:
        return tuple(dict.fromkeys([*notes, *filter(None, (view.left_out for view in views))]))
    nowhere = np.asarray(views[0].unplaced["object_id"])
    for view in views[1:]:
        nowhere = nowhere[np.isin(nowhere, np.asarray(view.unplaced["object_id"]))]
    told = [f"{len(nowhere)} objects of the table lie on none of the {len(views)} surveys"] if len(nowhere) else []
    return tuple(dict.fromkeys([*notes, *told]))
