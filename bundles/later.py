"""The commands that fit something to a bundle that ships, without training it again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import texts
from astroml_plugin.training.bundle import ModelBundle
from bundles import morphology
from workflows.progress import Reporter
from workflows.train import Progress


class Made(Protocol):
    """Simulated stamps."""

    def made(self, scratch: str, *, progress: Progress | None = None) -> str | list[str]:
        """One or several stores of stamps, made below `scratch` where they are missing."""


def stores(sets: Sequence[Made], scratch: str, progress: Progress | None = None) -> list[str]:
    """All stores of some simulations."""
    return [url for one in sets for url in texts(one.made(scratch, progress=progress))]


def command(
    arguments: Sequence[str] | None,
    *,
    prog: str,
    description: str | None,
    sets: Mapping[str, Sequence[Made]],
    fit: Callable[[str, list[str]], ModelBundle],
    told: Callable[[ModelBundle], str],
) -> int:
    """Make the stamps of a bundle, fit, and say what came of it.

    Args:
        arguments: of the command line.
        prog: name of the command.
        description: of it.
        sets: bundle -> its simulations; `morphology` has images instead.
        fit: to the folder of a bundle and its stamps.
        told: what is said of the bundle.

    Raises:
        InputError: the images of `morphology` are missing.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("bundle", choices=sorted({*sets, "morphology"}))
    parser.add_argument("--out", required=True, help="folder of the bundle, which is written again")
    parser.add_argument("--scratch", required=True, help="folder for the stamps, kept")
    parser.add_argument("--images", help="for morphology: NPZ as `python -m bundles morphology` takes it")
    options = parser.parse_args(arguments)
    with Reporter() as report:
        if options.bundle != "morphology":
            data = stores(sets[options.bundle], options.scratch, report)
        elif options.images:
            data = [morphology.ingested(options.images, options.scratch, report)]
        else:
            raise InputError("morphology has no simulation, only its own images: give --images NPZ")
    bundle = fit(options.out, data)
    print(f"{bundle.called} at {bundle.url}: {told(bundle)}", file=sys.stderr)  # noqa: T201
    return 0
