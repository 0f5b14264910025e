"""Shapes and shear responses."""
