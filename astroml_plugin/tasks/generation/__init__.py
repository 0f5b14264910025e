"""Drawn galaxies."""
