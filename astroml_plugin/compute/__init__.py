"""Torch devices and Dask clusters."""
