"""Names that stand in files: written once here, so that no rename in the code changes what is on disk.

They look like module paths and are none. A file that was written with them must stay readable.
"""

from __future__ import annotations

ATTRIBUTE = "astroml_plugin"
"""Key of our attributes in a Zarr group."""

CATALOG_FLAGS = "astroml_plugin.flags"
"""Parquet schema key: the map of flag names to bits, as JSON."""

CATALOG_VERSION = "astroml_plugin.version"
"""Parquet schema key: version of the package that declared the schema."""

PART = "astroml_plugin.part"
"""Parquet footer key: the part's row of the manifest, as JSON."""

PART_EXPOSURES = "astroml_plugin.exposures"
"""Parquet footer key of a part or merged file: what the image of each unit is worth, packed."""

PART_ORIGINS = "astroml_plugin.origins"
"""Parquet footer key of a part or merged file: device, torch and form of the networks of each unit, packed."""

PART_MEMBERS = "astroml_plugin.members"
"""Parquet footer key of a merged file: names of the parts within, packed."""

PREDICTIONS = "astroml_plugin_piece"
"""Parquet schema key of cached predictions: what they are of, as JSON."""

PROVENANCE = "astroml_plugin.provenance"
"""Arrow and Parquet schema key of an answer: where its rows come from, as JSON."""

SCORES = "astroml_plugin.scores"
"""`kind` in the header of a file of people's scores."""

TASK_ENTRY_POINTS = "astroml_plugin.tasks"
"""Entry-point group in which tasks are registered by name."""

NETWORK_ENTRY_POINTS = "astroml_plugin.networks"
"""Entry-point group in which networks are registered by name."""
