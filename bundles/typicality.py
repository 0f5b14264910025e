"""Let a bundle that ships say what is unlike its training set, without training it again.

    python -m bundles.typicality lens --out astroml_plugin/bundles/lens --scratch DIR
    python -m bundles.typicality morphology --out astroml_plugin/bundles/morphology --scratch DIR --images gz1.npz

Simulated bundles learn it from further stamps of the population that they were trained on, made by the same recipe;
`morphology` from the very stamps, divided as they were.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

from astroml_plugin.core.errors import InputError
from bundles import ellipticity, morphology, segmentation
from bundles.lens import training_set
from bundles.training_sets import TrainingSet
from workflows.fit_typicality import fit_typicality
from workflows.progress import Reporter

COUNT = 6144
"""Simulated stamps."""

POPULATIONS: dict[str, tuple[TrainingSet, ...]] = {
    "anomaly": (TrainingSet(f"anomalies-351-{COUNT}", "anomalies", COUNT, 351),),
    "ellipticity": tuple(
        replace(one, name=f"typical-{one.name}", count=COUNT // 3, seed=one.seed + 50)
        for one in ellipticity.ELLIPTICITY
    ),
    "lens": (training_set(COUNT, 451),),
    "segmentation": tuple(
        replace(one, name=f"typical-{one.name}", count=one.count // 3, seed=one.seed + 50)
        for one in segmentation.TRAINING
    ),
}
"""Bundle -> stamps of its population that nothing else used."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bundles.typicality", description=__doc__)
    parser.add_argument("bundle", choices=sorted({*POPULATIONS, "morphology"}))
    parser.add_argument("--out", required=True, help="folder of the bundle, which is written again")
    parser.add_argument("--scratch", required=True, help="folder for the stamps, kept")
    parser.add_argument("--images", help="for morphology: NPZ as `python -m bundles morphology` takes it")
    options = parser.parse_args(arguments)
    with Reporter() as report:
        if options.bundle != "morphology":
            data = [one.made(options.scratch, progress=report) for one in POPULATIONS[options.bundle]]
        elif options.images:
            data = [morphology.ingested(options.images, options.scratch, report)]
        else:
            raise InputError("morphology learns what is typical from its own images: give --images NPZ")
    bundle = fit_typicality(options.out, data=data, out=options.out)
    print(f"{bundle.name} at {bundle.url}: {bundle.card.training['typicality']}", file=sys.stderr)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
