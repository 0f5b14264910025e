"""Domains: the surveys that labelled objects are from, and how good a model is on each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from astroml_plugin.core import storage
from astroml_plugin.core.typing import I64
from astroml_plugin.tasks.base import Task

DOMAIN = "domain"
"""Label column with the name of the survey, or other source, that an object is from."""

_FEWEST = 10
"""Objects of a domain from which its figures are given."""


def source_names(urls: Sequence[str]) -> list[str]:
    """Names of sources: the last part of each URL without a suffix, numbered where two are alike."""
    names = []
    for url in urls:
        name = storage.redact(url).rstrip("/").rpartition("/")[2]
        names.append(name.removesuffix(".zarr").removesuffix(".view") or "source")
    counts = Counter(names)
    seen: Counter[str] = Counter()
    for place, name in enumerate(names):
        if counts[name] > 1:
            seen[name] += 1
            names[place] = f"{name} {seen[name]}"
    return names


def with_domain(tables: Sequence[pa.Table], urls: Sequence[str]) -> list[pa.Table]:
    """Label tables of several sources with a column of the source's name; as they are where one has such a column."""
    if len(tables) < 2 or any(DOMAIN in table.column_names for table in tables):
        return list(tables)
    named = zip(tables, source_names(urls), strict=True)
    return [table.append_column(DOMAIN, pa.array([name] * table.num_rows, pa.string())) for table, name in named]


def domain_counts(table: pa.Table, rows: Mapping[str, np.ndarray]) -> dict[str, dict[str, int]]:
    """Domain -> split -> objects; empty where there are not several."""
    found = _domains(table)
    return {name: {split: int((found[part] == name).sum()) for split, part in rows.items()} for name in _several(found)}


def by_domain(task: Task, outputs: Tensor, targets: Tensor, table: pa.Table) -> dict[str, Any]:
    """Figures of each domain under "domains"; empty where there are not several."""
    own = _domains(table)
    found = {name: figures_of(task, outputs, targets, table, np.flatnonzero(own == name)) for name in _several(own)}
    return {"domains": found} if found else {}


def _domains(table: pa.Table) -> np.ndarray:
    """(n,) name of the domain of each object; none of a table without such a column."""
    column = table[DOMAIN].to_pylist() if DOMAIN in table.column_names else []
    return np.array([str(word) for word in column], object)


def _several(domains: np.ndarray) -> list[str]:
    """Names of the domains in order; none where there is one alone."""
    names = sorted(set(domains))
    return names if len(names) > 1 else []


def figures_of(task: Task, outputs: Tensor, targets: Tensor, table: pa.Table, rows: I64) -> dict[str, Any]:
    """The task's figures of some of the objects, by their numbers (k,), and how many they are; of few no figures."""
    told = {}
    if len(rows) >= _FEWEST:
        told = task.metrics(outputs[rows], targets[rows], table.take(pa.array(rows)))
    return {**told, "count": len(rows)}
