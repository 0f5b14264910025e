"""Galaxy Zoo morphology: the recipe's network and classical methods, cross-validated on the same folds.

python -m benchmarks --only morphology     # finished pieces are not repeated
"""

from __future__ import annotations

import shutil
from typing import Any

from astroml_plugin.evaluation.class_comparison import FIGURES
from astroml_plugin.training.predictions import NETWORK
from benchmarks.harness import Section, scratch, shared_data
from bundles.morphology import FOLDS, ingested
from tests.pages import table
from workflows.compare import compare

METHODS = (
    NETWORK,
    *("mlp", "gradient_boosting", "svm", "random_forest", "random_forest_both", "cart"),
    *("mlp_pca", "svm_pca", "random_forest_pca"),
)
ASKED = {"accuracy": (0.885, 0.90), "balanced_accuracy": (0.83, 0.85), "ece": (0.02, 0.02)}
"""What issue 4 asks for, and its stretch."""


def run() -> Section:
    """Real SDSS images (Galaxy Zoo 1, Lintott et al. 2011): elliptical, spiral, edge-on."""
    archive = shared_data("gz1_sdss_rgb64_dev.npz")
    if archive is None:
        return Section("Morphology", "Not measured: there are no Galaxy Zoo images here (ASTROML_TEST_DATA).")
    folder = str(scratch() / "morphology")
    source = ingested(str(archive), folder)
    judged = compare("morphology", data=source, out=f"{folder}/cross-validation", folds=FOLDS, methods=METHODS)
    shutil.copy(f"{folder}/cross-validation/compare.png", "docs/figures/morphology_compare.png")
    asked = "; ".join(f"{name} {least:g} (stretch {best:g})" for name, (least, best) in ASKED.items())
    head = (
        f"{run.__doc__} {judged.objects:,} objects, {judged.folds} folds, pooled predictions of objects that a method "
        "never saw; value (95 % by bootstrap over objects). `balanced_accuracy_even` is that of probabilities brought "
        f"to equal class fractions. Asked for: {asked}.\n\n"
    )
    rows = [_row(record) for record in judged.table]
    return Section("Morphology", head + table(["method", *FIGURES, "training, s"], rows), {"table": judged.table})


def _row(record: dict[str, Any]) -> list[str]:
    cells = [f"{f['value']:.3f} ({f['low']:.3f} to {f['high']:.3f})" for f in (record[name] for name in FIGURES)]
    return [record["method"], *cells, f"{record['train_seconds']:.0f}"]
