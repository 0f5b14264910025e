"""Let a bundle that ships keep what its training looked like, without training it again.

    python -m bundles.reference lens --out astroml_plugin/bundles/lens --scratch DIR
    python -m bundles.reference morphology --out astroml_plugin/bundles/morphology --scratch DIR --images gz1.npz

Simulated bundles keep quantiles of a smaller draw of the sets that they were trained on: the same recipe, each set in
its proportion, another seed. `morphology` keeps those of the very stamps, divided as they were.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

from astroml_plugin.core.errors import InputError
from bundles import anomaly, ellipticity, lens, morphology, segmentation
from bundles.training_sets import TrainingSet
from workflows.fit_reference import fit_reference
from workflows.progress import Reporter

TRAINING: dict[str, tuple[TrainingSet, ...]] = {
    "anomaly": (anomaly.training_set(anomaly.COUNT),),
    "ellipticity": ellipticity.ELLIPTICITY,
    "lens": (lens.training_set(lens.COUNT),),
    "segmentation": segmentation.TRAINING,
}
"""Bundle -> the sets that it was trained on."""

COUNT = 2048
"""Stamps of all sets of a bundle; a reference looks at 512 of those for training, and of the others."""

FIELDS = 768
"""The same of a bundle that learns pixels: it has no outputs to look at."""

_FURTHER = 60
"""Added to the seed of a set."""


def drawn(bundle: str, count: int) -> list[TrainingSet]:
    """The training sets of a bundle, with `count` stamps in all and seeds that nothing else uses."""
    sets = TRAINING[bundle]
    whole = sum(one.count for one in sets)
    parts = [round(count * one.count / whole) for one in sets]
    return [
        replace(one, name=f"reference-{bundle}-{one.seed + _FURTHER}-{part}", count=part, seed=one.seed + _FURTHER)
        for one, part in zip(sets, parts, strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bundles.reference", description=__doc__)
    parser.add_argument("bundle", choices=sorted({*TRAINING, "morphology"}))
    parser.add_argument("--out", required=True, help="folder of the bundle, which is written again")
    parser.add_argument("--scratch", required=True, help="folder for the stamps, kept")
    parser.add_argument("--images", help="for morphology: NPZ as `python -m bundles morphology` takes it")
    parser.add_argument("--count", type=int, help=f"simulated stamps ({COUNT}; {FIELDS} fields for segmentation)")
    options = parser.parse_args(arguments)
    with Reporter() as report:
        if options.bundle != "morphology":
            count = options.count or (FIELDS if options.bundle == "segmentation" else COUNT)
            data = [one.made(options.scratch, least=1, progress=report) for one in drawn(options.bundle, count)]
        elif options.images:
            data = [morphology.ingested(options.images, options.scratch, report)]
        else:
            raise InputError("morphology keeps what its own images look like: give --images NPZ")
    bundle = fit_reference(options.out, data=data, out=options.out)
    told = bundle.card.training["reference"]
    names = ", ".join([*(f"{one['what']} {one['band']}".strip() for one in told["inputs"]), *told["outputs"]])
    print(f"{bundle.called} at {bundle.url} keeps {names}", file=sys.stderr)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
