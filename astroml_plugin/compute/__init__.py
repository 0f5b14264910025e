"""Torch devices and Dask clusters."""

__all__ = [
    "cluster",
    "device",
    "memory",
]
