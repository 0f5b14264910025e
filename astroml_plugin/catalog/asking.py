"""A catalog that is asked step by step, without SQL: the question is put together first, and read when it is needed.

Names are checked against the catalog's columns and quoted, and values are written as literals: nothing that stands in a
value can become SQL.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import pyarrow as pa
from astropy.coordinates import SkyCoord

from astroml_plugin.catalog import sql, store
from astroml_plugin.catalog.answers import QueryResult, TableResult
from astroml_plugin.catalog.conditions import condition_sql, equal_sql, good_sql
from astroml_plugin.catalog.cones import Cone, checked_cone
from astroml_plugin.catalog.info import describe_catalog
from astroml_plugin.catalog.query import query
from astroml_plugin.catalog.schema import HEALPIX
from astroml_plugin.catalog.streamed import CatalogRows
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError, InputError
from astroml_plugin.core.places import Place
from astroml_plugin.core.settings import refuse_unknown

_COLUMNS = "the columns of the catalog"


class Askable:
    """Steps of a question. Each gives a new `Selection`; their order does not matter, `top` counts last."""

    @abstractmethod
    def _selection(self) -> Selection:
        """The question so far."""

    def where(self, condition: str | None = None, /, *values: Any, **equal: Any) -> Selection:
        """Rows that pass a condition.

        Args:
            condition: in SQL, over the columns, for example "p_lens > 0.9"; a ? stands for a value.
            values: of the question marks, in their order: numbers, texts, or lists of them (`object_id IN ?`).
            equal: columns and the values, or lists of values, that they must have.

        Raises:
            InputError: the condition is no single expression, has other question marks than there are values, or names
                a column that is not there.
        """
        asked = self._selection()
        names = asked.catalog.schema.names
        refuse_unknown(equal, names, _COLUMNS)
        added = [equal_sql(name, value) for name, value in equal.items()]
        if condition is not None:
            added.insert(0, condition_sql(condition, values))
        elif values:
            raise InputError("where takes a condition before its values, for example where('p_lens > ?', 0.9)")
        return replace(asked, conditions=(*asked.conditions, *added))

    def near(self, *cone: Any) -> Selection:
        """Rows within a circle on the sky: `near(SkyCoord, radius)`, `near(ra, dec, radius)`, or one text with all.

        Raises:
            InputError: it is no circle, or there is one already.
        """
        asked = self._selection()
        if asked.cone is not None:
            raise InputError("rows are within one circle only: leave the other `near` away")
        return replace(asked, cone=checked_cone(cone[0] if len(cone) == 1 else cone))

    def columns(self, *names: str) -> Selection:
        """Some columns, in this order, instead of all.

        Raises:
            InputError: a column is not there; names the nearest one.
        """
        asked = self._selection()
        refuse_unknown(names, asked.catalog.schema.names, _COLUMNS)
        return replace(asked, names=names)

    def top(self, count: int, *, by: str, smallest: bool = False) -> Selection:
        """The rows with the largest values of a column, the largest first; rows without a finite value are left out.

        Args:
            count: of rows.
            by: name of a column of numbers.
            smallest: the smallest values instead, the smallest first.

        Raises:
            InputError: there is no such column of numbers, or no positive count.
        """
        asked = self._selection()
        schema = asked.catalog.schema
        refuse_unknown([by], schema.names, _COLUMNS)
        kind = schema.field(by).type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)) or count < 1:
            raise InputError(f"top {count} by {by}, a {kind}: give a number from 1 on, and a column of numbers")
        name = sql.name(by)
        finite = f"isfinite({name})" if pa.types.is_floating(kind) else f"{name} IS NOT NULL"
        order = f'{name} {"ASC" if smallest else "DESC"}, "object_id", "image"'
        return replace(asked, ranked=finite, order=order, count=int(count))

    def good(self, bundle: str | None = None, *, allow: tuple[str, ...] | str = ()) -> Selection:
        """Rows that are primary and have no flag that makes their values doubtful.

        These flags do: EDGE, MASKED, NONFINITE, SATURATED, DUPLICATE_ID, TRUNCATED, OUT_OF_DOMAIN. NO_VARIANCE, NO_PSF
        and BLENDED do not.

        Args:
            bundle: where several bundles measured: by the flags of this one. Default: by those of all.
            allow: names of flags that rows may have all the same.

        Raises:
            InputError: no such bundle or flag.
        """
        asked = self._selection()
        return replace(asked, conditions=(*asked.conditions, good_sql(asked.catalog.schema, bundle, allow)))


@dataclass(frozen=True, repr=False)
class Selection(Askable, TableResult):
    """Rows of a catalog that are asked for. Nothing is read before the rows, their number or a file are wanted."""

    catalog: store.Catalog
    """The catalog."""
    conditions: tuple[str, ...] = ()
    """SQL of the conditions."""
    cone: Cone | None = None
    """Right ascension, declination, radius in degrees."""
    names: tuple[str, ...] = ()
    """Columns; empty: all."""
    ranked: str = ""
    """SQL of what rows need to stand in the order."""
    order: str = ""
    """SQL of the order."""
    count: int | None = None
    """Rows at most."""

    def _selection(self) -> Selection:
        return self

    @property
    def sql(self) -> str:
        """The question in SQL, for `query`, which takes the cone beside it."""
        limit = "" if self.count is None else f"\nLIMIT {self.count}"
        order = self.order or (f'{sql.name(HEALPIX)}, "object_id", "image"' if self.cone is not None else "")
        text = f"SELECT {sql.names(self.names) or '*'}\nFROM catalog{self._where()}"
        return f"{text}\nORDER BY {order}{limit}" if order else f"{text}{limit}"

    def _where(self) -> str:
        conditions = [*self.conditions, self.ranked] if self.ranked else list(self.conditions)
        return "\nWHERE " + "\n  AND ".join(f"({one})" for one in conditions) if conditions else ""

    def get(self) -> QueryResult:
        """Read the rows."""
        return query(self.catalog.url, self.sql, cone=self.cone)

    def to_arrow(self) -> pa.Table:
        """Read the rows as Arrow; fields carry unit, ucd and description."""
        return self.get().to_arrow()

    def write(self, to: Place) -> QueryResult:
        """Write the rows to a .parquet, .csv, .ecsv, .fits or .vot, whole or not at all."""
        return query(self.catalog.url, self.sql, cone=self.cone, to=to)

    def __len__(self) -> int:
        text = f"SELECT count(*) AS n FROM catalog{self._where()}"  # noqa: S608 - see the module
        found = int(query(self.catalog.url, text, cone=self.cone).to_arrow()["n"][0].as_py())
        return found if self.count is None else min(found, self.count)

    def __bool__(self) -> bool:
        return True  # a question, whatever the answer

    def __repr__(self) -> str:
        near = "" if self.cone is None else "\nwithin {2:.6g} deg of {0:.6f} {1:+.6f}".format(*self.cone)
        told = "Selection: nothing is read yet; get(), to_qtable(), to_pandas(), write(FILE), len() and a loop read"
        return f"{told}\n{self.sql}{near}"

    def _repr_html_(self) -> None:
        return None


class Catalog(Askable, store.Catalog):
    """A folder of Parquet parts with one declared schema, which can be asked step by step."""

    @classmethod
    def open(cls, url: Place) -> Self:
        """The catalog at `url`; InputError when there is none or its format is newer than this package."""
        opened = store.Catalog.open(url)
        return cls(opened.url, opened.schema, opened.identity)

    def _selection(self) -> Selection:
        return Selection(self)

    def to_skycoord(self) -> SkyCoord:
        """Positions of all rows, ICRS; NaN where a row has none."""
        return self.columns("ra", "dec").to_skycoord()

    def __len__(self) -> int:
        return len(Selection(self))

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """All rows as name -> value, read a batch at a time."""
        for batch in CatalogRows.of(self.url).batches():
            yield from batch.to_pylist()

    def __repr__(self) -> str:
        try:
            rows = f"{len(self):,} rows"
        except (AstromlError, OSError) as error:
            rows = f"rows cannot be counted ({' '.join(str(error).split())[:80]})"
        return f"Catalog {storage.redact(self.url)}: {rows}, {len(self.schema)} columns"

    def _repr_html_(self) -> str:
        return describe_catalog(self)._repr_html_()
