"""Where work runs: torch devices, Dask clusters."""
