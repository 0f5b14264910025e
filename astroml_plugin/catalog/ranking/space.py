"""The space in which objects are alike: a latent column of the catalog, or several of its numbers, standardised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import Catalog, sql
from astroml_plugin.catalog.query import query
from astroml_plugin.catalog.ranking.names import check_measured, vector_column
from astroml_plugin.catalog.schema import matrix
from astroml_plugin.core.errors import InputError

LATENT = "latent"

WITHOUT = "give columns of numbers by --features A,B,…"
"""Advice for a catalog without vectors."""


@dataclass(frozen=True)
class Space:
    """Vectors of all objects as SQL, so that a catalog of any size is searched where it lies."""

    name: str
    """For people: the column, or the columns."""
    sql: str
    """Expression over the view `catalog` of type FLOAT[size]."""
    size: int
    """Numbers per object."""

    @classmethod
    def of(cls, catalog: Catalog, *, latent: str | None = None, features: Sequence[str] | None = None) -> Space:
        """The space of a catalog.

        Args:
            catalog: with a vector column, or with the columns `features`.
            latent: vector column; default `latent`, or the only `<bundle>_latent`.
            features: instead, columns of numbers, each divided by its standard deviation.

        Raises:
            InputError: no such columns; names what there is.
        """
        if features:
            return cls._of_features(catalog, features)
        name = vector_column(catalog.schema, latent, LATENT, "--latent COLUMN or --features A,B,…", WITHOUT)
        size = catalog.schema.field(name).type.list_size
        return cls(name, f"{sql.name(name)}::FLOAT[{size}]", size)

    @classmethod
    def _of_features(cls, catalog: Catalog, features: Sequence[str]) -> Space:
        check_measured(catalog.schema, features, "--features")
        columns = [f"{sql.name(name)}::DOUBLE" for name in features]
        measured = [
            part
            for column in columns
            for part in (
                f"avg({column}) FILTER (isfinite({column}))",
                f"stddev_pop({column}) FILTER (isfinite({column}))",
            )
        ]
        row = query(catalog.url, f"SELECT {', '.join(measured)} FROM catalog").to_arrow().to_pylist()  # noqa: S608
        values = list(row[0].values())
        parts = []
        for number, column in enumerate(columns):
            mean, spread = values[2 * number], values[2 * number + 1]
            if mean is None or not spread or not math.isfinite(spread):
                raise InputError(f"column '{features[number]}' has one value or none: leave it out of --features")
            parts.append(f"coalesce(({column} - {mean!r}) / {spread!r}, 'nan'::DOUBLE)::FLOAT")
        return cls(", ".join(features), f"array_value({', '.join(parts)})", len(features))

    def with_columns(self, names: Sequence[str]) -> Space:
        """This space and columns of numbers, as they are: for learners that standardise what they see."""
        if not names:
            return self
        numbers = ", ".join(f"coalesce({sql.name(name)}::FLOAT, 'nan'::FLOAT)" for name in names)
        size = self.size + len(names)
        text = f"CASE WHEN {self.sql} IS NOT NULL THEN list_concat({self.sql}::FLOAT[], [{numbers}])::FLOAT[{size}] END"
        return Space(f"{self.name}, {', '.join(names)}", text, size)

    def vector(self, catalog: Catalog, object_id: int) -> np.ndarray:
        """(size,) float32: where one object is.

        Raises:
            InputError: the catalog has no such object, or it has no vector.
        """
        text = (
            f'SELECT {self.sql} AS v FROM catalog WHERE object_id = {int(object_id)} AND "primary" '  # noqa: S608
            "ORDER BY image, x, y LIMIT 1"
        )
        found = query(catalog.url, text).to_arrow()
        if not found.num_rows:
            raise InputError(f"the catalog has no object {object_id}: give the object_id of one of its primary rows")
        value: np.ndarray = self.values(found["v"])[0]
        if not np.isfinite(value).all():
            raise InputError(f"object {object_id} has no {self.name}: it could not be measured, choose another one")
        return value

    def values(self, column: pa.ChunkedArray) -> np.ndarray:
        """(n, size) float32 of a column that selects `sql`; NaN where there is none."""
        return np.asarray(matrix(column), np.float32)

    def distance_sql(self, vector: np.ndarray) -> str:
        """Euclidean distance to a point, as SQL."""
        listed = ", ".join(repr(float(value)) for value in vector)
        return f"array_distance({self.sql}, [{listed}]::FLOAT[{self.size}])"
