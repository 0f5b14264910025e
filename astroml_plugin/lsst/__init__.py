"""LSST middleware: tasks of its pipelines, what its butler stores, and where the two find them. docs/lsst.md shows how.

Only `ingesting`, `measuring`, `formatters` and `dask` import the middleware (extra `lsst`).
"""

__all__: list[str] = []
