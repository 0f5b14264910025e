"""Make a bundle that ships with the package.

    python -m bundles ellipticity --out astroml_plugin/bundles/ellipticity --scratch DIR

Everything is seeded; run again after an interruption, it continues.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from astroml_plugin.training.bundle import ModelBundle
from workflows.progress import Reporter

BUNDLES = ("anomaly", "ellipticity", "lens", "morphology", "objects", "segmentation")
"""Each a module of this package with a function `make(*, out, scratch, scale, progress, **its own options)`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bundles", description=__doc__)
    kinds = parser.add_subparsers(dest="bundle", required=True)
    for name in BUNDLES:
        one = kinds.add_parser(name)
        one.add_argument("--out", required=True, help="folder of the bundle")
        one.add_argument("--scratch", required=True, help="folder for the training stamps, kept")
        one.add_argument("--scale", type=float, default=1.0, help="factor on the size of the training set")
        module = import_module(f"bundles.{name}")
        add: Callable[[argparse.ArgumentParser], None] | None = getattr(module, "add_options", None)
        if add is not None:
            add(one)
        one.set_defaults(make=module.make)
    options = vars(parser.parse_args(arguments))
    make, _ = options.pop("make"), options.pop("bundle")
    with Reporter() as report:
        bundle: ModelBundle = make(**options, progress=report)
    print(f"{bundle.name} at {bundle.url}: {bundle.card.metrics['test']}", file=sys.stderr)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
