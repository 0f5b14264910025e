"""Distributed survey image processing: tiles in Zarr, resident PyTorch models on Dask, catalogs in Parquet."""

__version__ = "0.1.0"
