"""The card of a bundle: plain values in JSON, covered by a digest. Nothing in it is executed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from astroml_plugin.core import foreign, storage
from astroml_plugin.core.errors import DamagedError, InputError
from astroml_plugin.core.settings import from_mapping
from astroml_plugin.tasks.input_unit import zero_point_of

FORMAT = 1
"""Version of the bundle's layout; a reader refuses newer ones."""

CARD = "card.json"
_AGAIN = "get the bundle again"
_SETTINGS: dict[str, foreign.Kinds] = {"bands": list, "stamp_size": int, "pixel_scale": foreign.NUMBER}
"""Types of settings that all tasks share; what else a task has, it checks itself."""


@dataclass(frozen=True)
class Card:
    """Description of a model, plain values only."""

    name: str
    """Name of the bundle, the prefix of its columns when several bundles run together."""
    task: str
    """Registered name of the task."""
    settings: dict[str, Any]
    """The task's settings: bands, pixel scale, stamp size, normalisation, classes, …"""
    network: str
    """Registered name of the network."""
    network_arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments of the network beyond bands, outputs and psf."""
    training: dict[str, Any] = field(default_factory=dict)
    """Training data and its digest, splits, seed, epochs, recipe."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Figures of merit on the validation and test splits."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of Python and of the packages that made it."""
    description: str = ""
    """For people: what it measures and on what."""
    licence: str = ""
    """Licence of the weights."""
    weights_sha256: str = ""
    """Hex SHA-256 of the weights' file."""
    format: int = FORMAT
    """Version of the layout."""
    card_sha256: str = ""
    """Hex SHA-256 over the other fields, written by `write_card`: a card that was edited or damaged is refused."""

    @property
    def sha256(self) -> str:
        """Digest of all fields but `card_sha256`: the identity of the bundle, since it covers that of the weights."""
        return storage.digest({name: value for name, value in _plain(self).items() if name != "card_sha256"})


def write_card(url: str, card: Card) -> Card:
    """Write the card of the bundle at `url` with its digest; gives the card as written."""
    signed = replace(card, card_sha256=card.sha256, format=FORMAT)
    storage.write_atomic(storage.join(url, CARD), card_bytes(signed))
    return signed


def card_bytes(card: Card) -> bytes:
    """The file of a card that is signed already."""
    return (json.dumps(_plain(card), indent=2) + "\n").encode()


def read_card(url: str, *, check: bool = True) -> Card:
    """Read the card of the bundle at `url`.

    Args:
        url: folder of the bundle.
        check: whether to compare the digest; without it, `write_card` can sign a card that was edited on purpose.

    Raises:
        InputError: no JSON, a newer format, missing or unknown fields, wrong types, or a card that was altered.
    """
    return parse_card(storage.read_bytes(storage.join(url, CARD)), storage.redact(url), check=check)


def parse_card(data: bytes, shown: str, *, check: bool = True) -> Card:
    """The card of a bundle from the bytes of its file.

    Args:
        data: JSON.
        shown: names the bundle, for messages.
        check: as for `read_card`.

    Raises:
        InputError: as `read_card`.
    """
    name = f"{CARD} of bundle {shown}"
    try:
        values = storage.parse_json(data, name)
    except DamagedError as error:
        raise InputError(f"{name} is not JSON ({error.__cause__}): get the bundle again") from None
    version = foreign.record(values, {"format": int}, name, _AGAIN)["format"]
    if version > FORMAT:
        raise InputError(
            f"bundle {shown} has format {version} and this version reads up to {FORMAT}: upgrade astroml-plugin"
        )
    known = {item.name for item in fields(Card)}
    missing = {"name", "task", "settings", "network", "weights_sha256"} - set(values)
    if missing or not set(values) <= known:
        odd = ", ".join(sorted(missing | (set(values) - known)))
        raise InputError(f"{name} has missing or unknown fields: {odd}")
    card = from_mapping(Card, values, name)
    given = foreign.record(card.settings, {}, f"[settings] of {name}", _AGAIN, optional=_SETTINGS)
    if not all(isinstance(band, str) for band in given.get("bands") or ()):
        raise InputError(f"{name} is damaged (its bands are no texts): {_AGAIN}")
    if check and card.card_sha256 != card.sha256:
        raise InputError(
            f"{name} was altered (SHA-256 {card.sha256[:12]}…, it says {card.card_sha256[:12] or 'nothing'}): get the "
            f"bundle again; if you edited it on purpose, sign it with "
            f"`python -m astroml_plugin.training.card {shown}`"
        )
    return card


def _plain(card: Card) -> dict[str, Any]:
    return {item.name: getattr(card, item.name) for item in fields(card)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Sign the cards of the bundles that are named, after they were edited on purpose; `--input-unit` edits it here."""
    parser = argparse.ArgumentParser(prog="python -m astroml_plugin.training.card", description=main.__doc__)
    parser.add_argument("bundle", nargs="+", help="folder or URL of a bundle")
    parser.add_argument(
        "--input-unit", metavar="UNIT", help="unit of the training stamps: nJy, 'AB 27.0', any, picture or uncalibrated"
    )
    options = parser.parse_args(arguments)
    zero_point_of(options.input_unit or "")
    for url in options.bundle:
        card = read_card(url, check=False)
        if options.input_unit:
            card = replace(card, settings={**card.settings, "input_unit": options.input_unit})
        write_card(url, card)


if __name__ == "__main__":
    main()
