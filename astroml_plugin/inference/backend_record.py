"""Runtimes of a run's networks, as its record names them, and catalogs whose rows are of several number formats."""

from __future__ import annotations

from collections.abc import Mapping

from astroml_plugin.catalog import Catalog

Ran = dict[str, dict[str, int]]
"""Bundle -> runtime and number format -> objects (windows, of a bundle that finds objects)."""


def by_bundle(forms: Mapping[str, int]) -> Ran:
    """The counts of `meter.Meter.forms` by bundle."""
    found: Ran = {}
    for name, count in sorted(forms.items()):
        bundle, runtime, number = name.rsplit(" ", 2)
        found.setdefault(bundle, {})[f"{runtime} {number}"] = count
    return found


def mixed_formats(catalog: Catalog, ran: Ran) -> tuple[str, ...]:
    """A sentence for each bundle whose rows in a catalog were made in several number formats, by the runs' records.

    Args:
        catalog: with the records of earlier runs.
        ran: of the run that ends.
    """
    formats: dict[str, set[str]] = {}
    for one in [ran, *(record.get("backends") for record in catalog.runs())]:
        for bundle, counts in one.items() if isinstance(one, dict) else ():
            formats.setdefault(bundle, set()).update(form.rpartition(" ")[2] for form in counts)
    return tuple(
        f"rows of bundle {bundle} are partly in {' and partly in '.join(sorted(found))}, as --precision auto gives on "
        f"CPUs and GPUs of several kinds; a new catalog with --precision float32 has one"
        for bundle, found in sorted(formats.items())
        if len(found) > 1
    )
