"""Let a bundle that ships keep what its training looked like, without training it again.

    python -m bundles.reference lens --out astroml_plugin/bundles/lens --scratch DIR
    python -m bundles.reference morphology --out astroml_plugin/bundles/morphology --scratch DIR --images gz1.npz

Simulated bundles keep quantiles of a smaller draw of the sets that they were trained on: the same recipe, each set in
its proportion, another seed. `morphology` keeps those of the very stamps, divided as they were.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from astroml_plugin.training.bundle import ModelBundle
from bundles import anomaly, ellipticity, later, lens, segmentation
from bundles.training_sets import TrainingSet
from workflows.fit_reference import fit_reference

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


def _told(bundle: ModelBundle) -> str:
    told = bundle.card.training["reference"]
    return ", ".join([*(f"{one['what']} {one['band']}".strip() for one in told["inputs"]), *told["outputs"]])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    return later.command(
        arguments,
        prog="python -m bundles.reference",
        description=__doc__,
        sets={name: drawn(name, FIELDS if name == "segmentation" else COUNT) for name in TRAINING},
        fit=lambda out, data: fit_reference(out, data=data, out=out),
        told=_told,
    )


if __name__ == "__main__":
    sys.exit(main())
