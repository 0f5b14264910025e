"""Names of exported files: which format they ask for."""

from __future__ import annotations

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place, text_of

_ENDINGS = {
    "onnx": ("onnx",),
    "votable": ("vot", "votable", "xml"),
    "fits": ("fits", "fit"),
    "parquet": ("parquet", "pq"),
    "moc": ("fits", "fit", "moc", "json", "txt"),
    "reg": ("reg",),
    "csv": ("csv",),
    "ecsv": ("ecsv",),
}
"""Format -> how names of its files end; of CSV only so that other formats are not written under its name."""


def named_format(kind: str, out: Place | None) -> str:
    """The format that the name of a file asks for; of a bundle onnx.

    Args:
        kind: of the source: bundle, catalog or survey.
        out: the file.

    Raises:
        InputError: its name tells none.
    """
    found = [] if out is None else [name for name, ends in _ENDINGS.items() if _ending(out) in ends]
    if kind == "bundle":
        return "onnx"
    if not found:
        raise InputError(f"in which format shall the {kind} be written? Give --to")
    return found[0]


def refuse_other_ending(to: str, out: Place) -> None:
    """InputError where the name of a file is that of another format."""
    meant = [name for name, ends in _ENDINGS.items() if _ending(out) in ends]
    if meant and to not in meant:
        own = " or ".join(f".{end}" for end in _ENDINGS.get(to, ()))
        own = f"use {own}" if own else "give the name of a folder"
        raise InputError(f"{storage.redact(out)} is the name of a file of {meant[0]}, and {to} is asked for: {own}")


def _ending(out: Place) -> str:
    return text_of(out).rpartition("/")[2].rpartition(".")[2].lower()
