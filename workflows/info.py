"""Files, stores, bundles and catalogs described: the verb `info`."""

from __future__ import annotations

from collections.abc import Sequence

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.info import describe_catalog
from astroml_plugin.core import storage
from astroml_plugin.core.description import Description, Descriptions
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place
from astroml_plugin.core.settings import texts
from astroml_plugin.sources.info import describe_source
from astroml_plugin.sources.ingest import SUFFIX, FitsOptions, describe_fits, describe_npz, expand
from astroml_plugin.sources.ingest.npz import is_archive
from astroml_plugin.sources.stamps import open_source
from astroml_plugin.training.info import describe_bundle

__all__ = ["Description", "Descriptions", "info"]


def info(paths: Sequence[Place] | Place, *, roles: str | None = None) -> Descriptions:
    """Describe FITS files plane by plane, archives, surveys, stamps, bundles and catalogs; nothing is written.

    Args:
        paths: files, folders, `*` patterns or URLs, or names of bundles that ship with the package.
        roles: roles of planes by hand, as in `ingest`.

    Raises:
        InputError: there is nothing at a path, or nothing that is known here.
    """
    given = texts(paths)
    if not given:
        raise InputError("nothing to describe: name a file, survey, stamps, bundle or catalog")
    options = FitsOptions(roles=roles)
    return Descriptions(one for path in given for one in _describe(path, options))


def _describe(path: str, options: FitsOptions) -> list[Description]:
    if is_archive(path):
        return [describe_npz(path)]
    if _has(path, "zarr.json"):
        return [describe_source(open_source(path))]
    if _has(path, "schema.json"):
        return [describe_catalog(Catalog.open(path))]
    if _has(path, "card.json") or not (
        "*" in path or SUFFIX.search(storage.path_of(path)) or storage.exists(storage.absolute(path))
    ):
        return [_bundle(path)]
    urls = expand([path])
    return [describe_fits(url, options) if len(urls) == 1 else _or_why_not(url, options) for url in urls]


def _bundle(path: str) -> Description:
    """Description of a bundle; where none is there, what else could be meant."""
    try:
        return describe_bundle(path)
    except InputError as error:
        if _has(path, "card.json"):
            raise
        raise InputError(f"no file, survey, stamps or catalog at {storage.redact(path)}, and {error}") from error


def _or_why_not(url: str, options: FitsOptions) -> Description:
    """Description of one of several files; of one that cannot be read, why not."""
    try:
        return describe_fits(url, options)
    except InputError as error:
        return Description(storage.redact(url), "not read", {}, (), (), (f"ingest refuses it: {error}",))


def _has(path: str, name: str) -> bool:
    return (
        "*" not in path and storage.path_of(path) == path and storage.exists(storage.join(storage.absolute(path), name))
    )
