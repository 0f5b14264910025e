"""Distributed survey image processing: tiles in Zarr, resident PyTorch models on Dask, catalogs in Parquet."""

from astroml_plugin.core.version import version

__version__: str


def __getattr__(name: str) -> str:
    if name == "__version__":
        return version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
