"""Bundles at hand: what each measures, needs and gives, and where it must not be trusted. The verb `bundles`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from astroml_plugin.core import storage
from astroml_plugin.core.description import Descriptions
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place
from astroml_plugin.core.settings import texts
from astroml_plugin.training.about import about_bundle
from astroml_plugin.training.bundle import CARD, ModelBundle, shipped

__all__ = ["bundles"]


def bundles(places: Sequence[Place] | Place = ()) -> Descriptions:
    """Describe bundles for those who choose one: the ones that ship, or your own.

    Args:
        places: bundles (path, URL or shipped name), or folders that hold several; default: all that ship.

    Raises:
        InputError: there is no bundle at a place, or one that was altered.
    """
    names = texts(places) or shipped()
    return Descriptions(about_bundle(ModelBundle.load(one), one) for name in names for one in _found(name))


def _found(place: str) -> Iterator[str]:
    """The bundle at a place, or those in the folder."""
    if place in shipped() or not storage.is_local(place) or storage.exists(storage.join(place, CARD)):
        yield place
        return
    within = sorted(path.parent for path in storage.local_path(place).expanduser().glob(f"*/{CARD}"))
    if not within and storage.local_path(place).expanduser().is_dir():
        raise InputError(f"no bundle in {place}: neither it nor a folder in it holds a {CARD}")
    yield from map(str, within) if within else [place]
