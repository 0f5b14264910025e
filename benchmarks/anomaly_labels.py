"""What labels would add to a search for anomalies: active learning, and a forest that is taught all of them.

Parts of the section of `benchmarks.anomaly`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.evaluation.anomaly_report import FPR
from astroml_plugin.evaluation.ranking_metrics import Ranked, auroc
from astroml_plugin.labelling.active import Trial, trials
from benchmarks.harness import kept
from tests.pages import table

LABELS = 100
"""Objects that are labelled, and that are looked at afterwards."""
LEARNERS = ("score_process", "forest")
TRUTHS = {"merger": ("separation", "psf_fwhm_r"), "lens": ("arc_snr", "psf_fwhm_r"), "ring": ("ring_radius", "mag_r")}
TRUTHS |= {"trail": ("mag_r", "trail_peak")}
"""Kind -> columns of its truth by which it is split into thirds."""
_TREES, _FOLDS = 100, 5


@dataclass(frozen=True)
class Sought:
    """Objects among which someone seeks a kind."""

    space: np.ndarray
    """(n, k) latent vectors and signs, as `rerank` shows them to learners."""
    score: np.ndarray
    """(n,)"""
    odd: np.ndarray
    """(n,) which are of the kind."""


def learning(sets: Mapping[str, Sought], seeds: int, key: str) -> tuple[str, dict[str, Any]]:
    """Active learning on every set by every learner; finished ones are not repeated."""
    rows, data = [], {}
    for place, (name, one) in enumerate(sets.items()):
        for learner in LEARNERS:
            found = kept(f"anomaly-labels-{key}-{place}-{learner}", lambda: _played(one, learner, seeds))  # noqa: B023
            data[f"{name}, {learner}"] = found
            rows.append([f"{name} ({one.odd.sum()} of {len(one.odd):,})", learner, *_cells(found, int(one.odd.sum()))])
    text = (
        f"### Active learning\n\nSomeone who knows the truth labels {LABELS} objects: ten at a time, the highest "
        "ranked, learning after each ten (active), or at random, or in the order of the score, from which nothing is "
        "learned. Anomalies of the kind that is sought among the labelled + among the next "
        f"{LABELS} that each then proposes, means of {seeds} seeds. `next`: the latter, active to random (2 is asked "
        "for; in brackets what it would be if all were found that active labelling left); `in all`: both, active to "
        "random and to the score. Learners see the latent vector, the signs and the score, as `rerank` shows them.\n\n"
    )
    head = ["sought", "learner", "active", "random", "score alone", "next", "in all, to random", "in all, to the score"]
    return text + table(head, rows), data


def _played(one: Sought, learner: str, seeds: int) -> dict[str, dict[str, float]]:
    found = trials(one.space, one.score, one.odd, labels=LABELS, following=LABELS, learner=learner, seeds=seeds)
    return {arm: _counted(trial) for arm, trial in found.items()}


def _counted(trial: Trial) -> dict[str, float]:
    return {"labelled": float(trial.labelled.mean()), "following": trial.mean, "error": trial.error}


def _cells(found: Mapping[str, Mapping[str, float]], odd: int) -> list[str]:
    arms = ("active", "random", "unsupervised")
    shown = [f"{found[arm]['labelled']:.1f} + {found[arm]['following']:.1f}" for arm in arms]
    following = {arm: found[arm]["following"] for arm in arms}
    whole = {arm: found[arm]["labelled"] + following[arm] for arm in arms}
    pairs = [(following, "random"), (whole, "random"), (whole, "unsupervised")]
    ratios = [f"{one['active'] / one[arm]:.2f}" if one[arm] else "-" for one, arm in pairs]
    if following["random"]:
        ratios[0] += f" ({(odd - found['active']['labelled']) / following['random']:.2f})"
    return [*shown, *ratios]


def limits(space: np.ndarray, score: np.ndarray, kind: np.ndarray, truths: Mapping[str, pa.Table]) -> tuple[str, Any]:
    """Which anomalies are missed: a forest taught the labels of other folds, and thirds of each kind by its truth."""
    taught = _taught(space, kind != "normal")
    ordinary = kind == "normal"
    data: dict[str, Any] = {"taught": {}, "thirds": {}}
    for name in (*truths, "all"):
        mask = ordinary | (kind == name) if name != "all" else np.ones(len(kind), bool)
        data["taught"][name] = [auroc(values[mask], ~ordinary[mask]) for values in (score, taught)]
    rows = []
    for name, truth in truths.items():
        own = score[kind == name]
        for column in (one for one in TRUTHS[name] if one in truth.column_names):
            values = truth[column].to_numpy().astype(float)
            edges = np.quantile(values, [0, 1 / 3, 2 / 3, 1])
            part = np.digitize(values, edges[1:-1])
            figures = [_third(own[part == number], score[ordinary]) for number in range(3)]
            data["thirds"][f"{name} {column}"] = [edges.tolist(), figures]
            spans = [
                f"{low:.3g}–{high:.3g}: {one[0]:.3f} / {one[1]:.2f}"
                for (low, high), one in zip(pairwise(edges), figures)
            ]
            rows.append([name, column, *spans])
    text = (
        f"#### What is missed\n\nAUROC of the score, and of a random forest on the latent vector and the signs "
        f"that was taught the labels of four fifths of these very stamps ({_FOLDS} folds): "
        + "; ".join(f"{name} {ours:.3f}, {best:.3f}" for name, (ours, best) in data["taught"].items())
        + f". Thirds of each kind by its truth, AUROC / recall at {FPR:.0%} false positives:\n\n"
    )
    return text + table(["kind", "by", "lowest third", "middle", "highest"], rows), data


def _third(odd: np.ndarray, ordinary: np.ndarray) -> list[float]:
    score, truth = np.concatenate([odd, ordinary]), np.arange(len(odd) + len(ordinary)) < len(odd)
    return [auroc(score, truth), Ranked(score, truth).tpr_at_fpr(FPR)]


def _taught(space: np.ndarray, odd: np.ndarray) -> np.ndarray:
    """(n,) probability of being odd, by trees that never saw the object."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    forest = RandomForestClassifier(_TREES, min_samples_leaf=3, class_weight="balanced", random_state=0)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    return np.asarray(cross_val_predict(forest, space, odd, cv=folds, method="predict_proba")[:, 1])
