"""How well anomalies are ranked, by the score, its signs and the searches of others on the same pixels.

The baselines learn from no labels either: those that need a population take the stamps that are evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.core.registry import optional
from astroml_plugin.core.typing import F64
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.evaluation import anomaly_figures, bootstrap
from astroml_plugin.evaluation.baselines.features import pixel_features
from astroml_plugin.evaluation.baselines.shape_features import shape_features
from astroml_plugin.evaluation.measurements import Measurements
from astroml_plugin.evaluation.ranking_metrics import auroc, search_figures
from astroml_plugin.sources.labels import label_texts

FPR = 0.05
"""False-positive rate at which recall is quoted."""

_COMPONENTS = 50
_TREES = 200


def _shapes(cutouts: Cutouts) -> dict[str, np.ndarray]:
    found = shape_features(cutouts)
    return dict(zip(found.names, found.values.T))


def _pixels(cutouts: Cutouts) -> dict[str, np.ndarray]:
    found = pixel_features(cutouts)
    return dict(zip(found.names, found.values.T))


def _sources(cutouts: Cutouts) -> dict[str, np.ndarray]:
    """Sources that SEP (Barbary 2016, JOSS 1, 58) detects on the mean of the bands, beside the object's own."""
    sep = optional("sep", 'SEP is not installed: pip install "astroml-plugin[classical]"')
    counts = np.empty(len(cutouts))
    light = cutouts.image.float().mean(1).numpy().astype(np.float64)
    for number, image in enumerate(light):
        plane = np.ascontiguousarray(image)
        background = float(np.median(plane))
        noise = 1.4826 * float(np.median(np.abs(plane - background))) or 1.0
        found = sep.extract(plane - background, 1.5, err=noise, minarea=5)
        counts[number] = len(found) - 1 + 1e-3 * np.log1p(max(0.0, float(np.sum(found["flux"]))))
    return {"neighbours": counts}


BASELINES: dict[str, Callable[[Cutouts], dict[str, np.ndarray]]] = {
    "shapes": _shapes,
    "pixels": _pixels,
    "sep": _sources,
}
"""Name -> measurements (n,) of stamps, which `searches` turns into scores."""

NEEDS = {"sep": "sep"}


def searches(
    found: Mapping[str, Mapping[str, np.ndarray]], learned: Mapping[str, Mapping[str, np.ndarray]] | None = None
) -> dict[str, F64]:
    """Scores (n,), higher is odder, of the searches that the measurements allow.

    asymmetry (rotational, alone: Conselice 2003); second_source (its flux over the first's); forest_shapes and
    forest_pca (isolation forests, Liu et al. 2008, on shape features and on 50 principal components); pca (error of
    their reconstruction); sep (number of neighbours).

    Args:
        found: name of `BASELINES` -> columns (n,).
        learned: the same of the population that forests and components are fitted to; default `found` itself.
    """
    learned = learned or found
    scores_of: dict[str, F64] = {}
    if "shapes" in found:
        scores_of |= {name: _filled(found["shapes"][name]) for name in ("asymmetry", "second_source")}
        scores_of |= _forest("forest_shapes", _matrix(found["shapes"]), _matrix(learned["shapes"]))
    if "pixels" in found:
        own, population = _matrix(found["pixels"]), _matrix(learned["pixels"])
        middle = population.mean(0)
        size = min(_COMPONENTS, *population.shape)
        _, _, axes = np.linalg.svd(population - middle, full_matrices=False)
        parts, base = (own - middle) @ axes[:size].T, (population - middle) @ axes[:size].T
        scores_of["pca"] = ((own - middle - parts @ axes[:size]) ** 2).mean(1)
        scores_of |= _forest("forest_pca", parts, base)
    if "sep" in found:
        scores_of["sep"] = np.asarray(found["sep"]["neighbours"], np.float64)
    return scores_of


def _matrix(columns: Mapping[str, np.ndarray]) -> F64:
    return np.stack([_filled(values) for values in columns.values()], axis=1)


def _filled(values: np.ndarray) -> F64:
    """Values (n,), the median for those that could not be measured: they are taken for ordinary."""
    plain = np.asarray(values, np.float64)
    known = np.isfinite(plain)
    return np.where(known, plain, np.median(plain[known]) if known.any() else 0.0)


def _forest(name: str, values: F64, population: F64) -> dict[str, F64]:
    from sklearn.ensemble import IsolationForest  # a second that no worker of an inference needs to spend

    forest = IsolationForest(n_estimators=_TREES, random_state=0).fit(population)
    return {name: -forest.score_samples(values)}


# ---- figures of merit --------------------------------------------------------------------------------------------


def painted(logit: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    """How well the judge tells painted stamps from others; nothing where there is only one of both."""
    odd, known = targets == 1, (targets == 0) | (targets == 1)
    if not odd.any() or odd[known].all() or np.ptp(logit) == 0:
        return {}
    return {"painted_auroc": auroc(logit[known], odd[known])}


def compared(
    ranked: Mapping[str, F64], odd: np.ndarray, repeats: int = 500, seed: int = 0
) -> dict[str, dict[str, dict[str, float]]]:
    """`search_figures` of every ranking with bootstrap intervals, and the first one's gains over the others.

    Args:
        ranked: name -> scores (n,); the first one is ours.
        odd: (n,) bool.
        repeats: bootstrap samples, anomalies and others drawn apart, the same for all rankings.
        seed: of them.

    Returns:
        name -> auroc, rws, recall and, but for the first, auroc_gain, rws_gain, recall_gain (ours less this one) ->
        value, low, high (95 %).
    """
    draws = list(bootstrap.stratified_draws([np.flatnonzero(odd), np.flatnonzero(~odd)], repeats, seed))
    whole = {name: search_figures(score, odd, FPR) for name, score in ranked.items()}
    sampled = {name: [search_figures(score[rows], odd[rows], FPR) for rows in draws] for name, score in ranked.items()}
    ours = next(iter(ranked))
    found = {name: bootstrap.intervals(whole[name], sampled[name]) for name in ranked}
    for name in list(ranked)[1:]:
        found[name] |= bootstrap.gains(whole[ours], sampled[ours], whole[name], sampled[name])
    return found


def assessed(
    measured: Measurements, odd: np.ndarray | None, table: pa.Table, label: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Report of `evaluate`: rankings and a figure where anomalies are known, artefacts and spread of the score."""
    own = measured.own
    score = np.nan_to_num(np.asarray(own["anomaly_score"], np.float64))  # what has no score is found last
    kinds, counts = np.unique(own["artefact"].astype(str), return_counts=True)
    found: dict[str, Any] = {
        "score": {str(part): float(np.quantile(score, part)) for part in (0.5, 0.9, 0.99, 1.0)},
        "ties": int(len(score) - len(np.unique(score))),
        "artefacts": dict(zip(kinds.tolist(), counts.tolist())),
    }
    if odd is None:
        return found, {}
    signs = {name: np.asarray(values, np.float64) for name, values in own.items() if name.startswith("anomaly_")}
    ranked = {**{name: np.nan_to_num(values) for name, values in signs.items()}, **searches(measured.baselines)}
    found |= {"anomalies": int(odd.sum()), "objects": len(odd), "rankings": compared(ranked, odd)}
    texts = label_texts(table, label)
    found["by_kind"] = {
        str(kind): compared({"": score[rows]}, odd[rows])[""]
        for kind in sorted({text for text in texts[odd] if text is not None})
        if len(rows := np.flatnonzero(~odd | (texts == kind)))
    }
    return found, {"rankings": anomaly_figures.curves(ranked, odd), "score": anomaly_figures.spread(score, odd)}
