"""Odd objects."""
