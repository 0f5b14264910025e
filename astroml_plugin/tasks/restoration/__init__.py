"""Restored galaxies."""
