"""A catalog that is asked for a page: it is summed up by SQL, and no more than a few thousand rows come to Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.sessions import CatalogSession, open_session
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.labelling.pixels import PixelReader, recorded_source
from astroml_plugin.reporting.options import ReportOptions
from astroml_plugin.sources.stamps import Stamps, open_source
from astroml_plugin.sources.survey import Survey
from astroml_plugin.training.places import shipped_name

PRIMARY = '"primary"'
"""SQL of the rows that count: one for each object."""


@dataclass
class RunSubject:
    """A catalog and what lies around it."""

    catalog: Catalog
    """The catalog."""
    session: CatalogSession
    """The catalog, open for questions."""
    options: ReportOptions
    """Choices of the page."""
    shared: dict[str, Any] = field(default_factory=dict)
    """Answers that several sections need, by name."""

    @classmethod
    @contextmanager
    def opened(cls, url: str, options: ReportOptions) -> Iterator[RunSubject]:
        """The catalog at `url`, open as long as the context."""
        catalog = Catalog.open(url)
        with open_session(catalog, memory=options.memory) as session:
            yield cls(catalog, session, options)

    @property
    def schema(self) -> pa.Schema:
        """Columns of the catalog."""
        return self.catalog.schema

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """Records of the runs that measured, oldest first."""
        return [record for record in self.catalog.runs() if record.get("kind", "infer") == "infer"]

    @cached_property
    def failures(self) -> pa.Table:
        """Units that failed."""
        return self.catalog.failures()

    @cached_property
    def unplaced(self) -> pa.Table:
        """Objects that no unit owns."""
        return self.catalog.unplaced()

    @cached_property
    def counts(self) -> dict[str, int]:
        """rows, objects (primary rows), flagged and unflagged (objects with and without a flag), shared (bits that all
        objects have), placed (objects with a sky position)."""
        text = (
            f"SELECT count(*) AS rows, count(*) FILTER ({PRIMARY}) AS objects, "  # noqa: S608
            f"count(*) FILTER ({PRIMARY} AND flags <> 0) AS flagged, "
            f"count(*) FILTER ({PRIMARY} AND flags = 0) AS unflagged, "
            f"coalesce(bit_and(flags) FILTER ({PRIMARY}), 0) AS shared, "
            f"count(*) FILTER ({PRIMARY} AND _healpix_29 IS NOT NULL) AS placed FROM catalog"
        )
        return {name: int(value) for name, value in self.session.row(text).items()}

    @cached_property
    def bundles(self) -> dict[str, tuple[str, str]]:
        """Name in the catalog of each bundle that measured it -> (name by which people ask for it, URL)."""
        known = self.catalog.identity.get("bundles")
        last: Mapping[str, Any] = self.records[-1] if self.records else {}
        told = [one for one in last.get("bundles") or () if isinstance(one, dict)]
        urls = {str(one.get("name")): str(one.get("url")) for one in told}
        names = [str(name) for name in known] if isinstance(known, dict) else []
        return {name: (shipped_name(urls.get(name, "")) or name, urls.get(name, name)) for name in names}

    @cached_property
    def _source(self) -> tuple[Survey | Stamps | None, str]:
        """(the source, ""), or (None, why it is not at hand)."""
        url = self.options.source or recorded_source(self.catalog)
        if url is None:
            return None, "the catalog does not say where its pixels are: give --source SURVEY or STAMPS"
        try:
            opened = open_source(url)
        except Exception as error:
            if self.options.source:
                raise
            place = storage.redact(url)
            return None, f"its source {place} is not at hand ({storage.redact(str(error))}): give --source to name it"
        return opened, ""

    @property
    def source(self) -> Survey | Stamps | None:
        """The survey or the stamps that were measured; None where they are away."""
        return self._source[0]

    @property
    def no_source(self) -> str:
        """Why there is no source, in one sentence; empty where there is one."""
        return self._source[1]

    def pixels(self) -> PixelReader:
        """Reader of the pixels of rows.

        Raises:
            InputError: the source is away, or is another one.
        """
        if self.source is None:
            raise InputError(self.no_source)
        return PixelReader(self.source.url, self.catalog)
