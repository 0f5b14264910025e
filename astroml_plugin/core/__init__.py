"""Errors, flags, settings, storage, registry: what every room stands on."""
