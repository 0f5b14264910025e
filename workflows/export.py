"""A bundle as one file that other programs run on raw pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.onnx_file import onnx_file

FORMATS = ("onnx",)
"""Formats that a bundle is exported to."""


@dataclass(frozen=True)
class ExportResult:
    """Outcome of an export."""

    out: str
    """The file."""
    bytes: int
    """Size of the file."""
    description: dict[str, Any]
    """Facts that users need: bands, sizes, units, inputs, outputs; they are in the file's metadata too."""
    differences: dict[str, float]
    """Output -> largest difference from our own measurement of drawn stamps, relative above 1."""


def export(
    bundle: str | Path, *, to: str = "onnx", out: str | Path | None = None, variance: bool = True
) -> ExportResult:
    """Write a bundle as one file for other programs: raw pixels in, columns out, the normalisation inside.

    The file is written only if ONNX Runtime gives what we measure on the same stamps, to 3e-5.

    Args:
        bundle: path, URL or shipped name.
        to: format of the file: onnx.
        out: file or URL to write; default the bundle's name with .onnx, in the current folder.
        variance: a variance as second input, where the bundle reads one; without it the noise is that of the border.

    Raises:
        InputError: no such format, the extra `onnx` is not installed, or the bundle cannot be exported.
    """
    if to not in FORMATS:
        raise InputError(f"a bundle is exported to {', '.join(FORMATS)}, not to {to!r}")
    model = ModelBundle.load(bundle)
    url = storage.absolute(str(out or f"{model.name}.{to}"))
    made = onnx_file(model, variance=variance)
    made.write(url)
    return ExportResult(url, len(made.content), made.description.to_json(), made.differences)


def show(result: ExportResult) -> str:
    """The outcome for a terminal: where it is, what goes in and what comes out."""
    told = result.description
    inputs, outputs = (
        ", ".join(f"{port['name']} {_shape(port)}" for port in told[key]) for key in ("inputs", "outputs")
    )
    gap = max(result.differences.values())
    lines = [f"exported {told['name']} to {result.out}, {result.bytes / 1e6:.1f} MB; ONNX Runtime agrees to {gap:.1g}"]
    lines += [f"in: {inputs}", f"out: {outputs}"]
    return "\n".join(lines)


def _shape(port: dict[str, Any]) -> str:
    return f"({', '.join(map(str, port['shape']))})"
