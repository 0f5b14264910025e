"""Learning from scores: what it finds, what decides between equals, what is refused; and the trials that measure it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from astroml_plugin.catalog import Column
from astroml_plugin.core.errors import InputError
from astroml_plugin.labelling.active import LEARNERS, relearned, trials
from astroml_plugin.labelling.relearn import rerank
from tests.ranked_catalogs import ranked_catalog, rows, with_column
from workflows.label import open_labels
from workflows.label import rerank as workflow_rerank


def two_kinds(count: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(space, score, interesting): the score likes a dull kind and the interesting one alike, the space tells them."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, count, p=[0.8, 0.1, 0.1])  # common, dull oddities, interesting
    space = rng.normal(0, 1, (count, 4)) + 4 * np.eye(4)[kind]
    score = rng.normal(0, 1, count) + 3 * (kind > 0)
    return space, score, kind == 2


@pytest.mark.parametrize("learner", sorted(LEARNERS))
def test_a_few_scores_tell_the_interesting_from_the_odd(learner: str) -> None:
    space, score, interesting = two_kinds()
    first = np.argsort(-score)[:30]
    worth = relearned(space, score, first, np.where(interesting[first], 5, 0), learner=learner, seed=1)
    rest = np.setdiff1d(np.arange(600), first)
    after = rest[np.argsort(-worth[rest])][:25]
    before = rest[np.argsort(-score[rest])][:25]
    assert interesting[after].mean() > 0.8
    assert interesting[after].sum() > 1.4 * interesting[before].sum()
    again = relearned(space, score, first, np.where(interesting[first], 5, 0), learner=learner, seed=1)
    np.testing.assert_array_equal(worth, again)


def test_between_equals_the_unsupervised_score_decides() -> None:
    space = np.repeat([[0.0], [9.0]], 20, axis=0)
    score = np.arange(40.0)
    worth = relearned(space, score, [0, 1, 2, 20, 21, 22], [0, 0, 0, 5, 5, 5], learner="forest")
    assert (np.diff(worth[3:20]) >= 0).all()
    assert worth[23:].min() > worth[:20].max()


def test_the_score_is_believed_until_labels_say_otherwise() -> None:
    space, score, _ = two_kinds(400, seed=3)
    dull = np.argsort(score)[:6]
    worth = relearned(space, score, dull, [0, 0, 0, 0, 0, 1], learner="score_process")
    rest = np.setdiff1d(np.arange(400), dull)
    assert np.corrcoef(worth[rest], score[rest])[0, 1] > 0.5
    first = np.argsort(-score)[:40]
    wrong = relearned(space, score, first, 5.0 * (np.arange(40) == 0), learner="score_process")
    rest = np.setdiff1d(np.arange(400), first)
    assert np.ptp(wrong[rest]) < 0.5 * np.ptp(worth[rest])


def test_objects_without_vector_or_score_come_last_and_are_no_lesson() -> None:
    space, score, interesting = two_kinds()
    space[:10], score[10:20] = np.nan, np.inf
    labelled = np.arange(60)
    worth = relearned(space, score, labelled, np.where(interesting[:60], 5, 0))
    assert np.isneginf(worth[:20]).all()
    assert np.isfinite(worth[20:]).all()
    with pytest.raises(InputError, match="0 scored objects"):
        relearned(space, score, labelled[:20], np.ones(20))


@pytest.mark.parametrize(("given", "says"), [([5, 0, 5, 0], "4 scored objects"), ([3] * 9, "9 scored objects with 1 ")])
def test_too_little_to_learn_from(given: list[int], says: str) -> None:
    space, score, _ = two_kinds()
    with pytest.raises(InputError, match=says):
        relearned(space, score, np.arange(len(given)), given)


def test_learning_says_what_it_needs() -> None:
    space, score, _ = two_kinds(50)
    with pytest.raises(InputError, match="there are forest, astronomaly, score_process, gaussian_process"):
        relearned(space, score, range(6), [0, 1, 2, 3, 4, 5], learner="svm")


def test_a_catalog_is_ranked_by_what_people_say(tmp_path: Path) -> None:
    space, score, interesting = two_kinds()
    table = with_column(rows(600), "latent", space.astype(np.float32).tolist())
    table = with_column(table, "anomaly_score", score.astype(np.float32))
    catalog = ranked_catalog(tmp_path / "c", table)
    ids = np.asarray(table["object_id"])
    given = open_labels(catalog.url, who="ana")
    for row in np.argsort(-score)[:30]:
        given.add(int(ids[row]), 5 if interesting[row] else 0)
    found = workflow_rerank(catalog.url, given, 25, learner="forest", fold_radius=0)
    chosen = np.searchsorted(ids, np.asarray(found.table["object_id"]))
    assert interesting[chosen].mean() > 0.8
    assert not set(found.table["object_id"].to_pylist()) & set(given.mine())
    assert found.by == "random forest of the given scores in latent, from 30 scored objects"
    assert (np.diff(np.asarray(found.table["rank_score"])) <= 0).all()
    narrow = rerank(catalog.url, given, 25, pool_size=40, fold_radius=0)
    assert narrow.by.startswith("random forest near scored objects")
    top = set(ids[np.argsort(-score)[:40]].tolist())
    assert set(narrow.table["object_id"].to_pylist()) <= top
    assert len(narrow) == 10
    plain = rerank(catalog.url, given.table(), 600, features=["size", "anomaly_score"], scored_too=True, fold_radius=0)
    assert len(plain) == 600
    assert " in size, anomaly_score, from 30" in plain.by


def test_scored_objects_outside_the_pool_teach_too(tmp_path: Path) -> None:
    space, score, interesting = two_kinds()
    table = with_column(rows(600), "latent", space.astype(np.float32).tolist())
    table = with_column(table, "anomaly_score", score.astype(np.float32))
    catalog = ranked_catalog(tmp_path / "c", table)
    ids = np.asarray(table["object_id"])
    dull = np.argsort(score)[:20]
    told = pa.table({"object_id": ids[[*dull, *np.flatnonzero(interesting)[:10]]], "score": [0.0] * 20 + [5.0] * 10})
    found = rerank(catalog.url, told, 10, pool_size=100, learner="forest", fold_radius=0)
    assert interesting[np.searchsorted(ids, np.asarray(found.table["object_id"]))].mean() > 0.8
    assert found.by.endswith("from 30 scored objects")
    strange = pa.table({"object_id": [1, 2, 3, 4, 5], "score": [0.0, 1, 2, 3, 4]})
    with pytest.raises(InputError, match="0 scored objects"):
        rerank(catalog.url, strange, 10)


def test_learners_see_the_signs_beside_the_latent_vector(tmp_path: Path) -> None:
    space, score, interesting = two_kinds()
    table = with_column(rows(600), "latent", np.zeros((600, 4), np.float32).tolist())  # it tells nothing
    table = with_column(table, "anomaly_score", score.astype(np.float32))
    for number, values in enumerate(space.T):
        table = table.append_column(f"anomaly_{number}", pa.array(values.astype(np.float32)))
    declared = [Column(f"anomaly_{number}", "float32") for number in range(4)]
    catalog = ranked_catalog(tmp_path / "c", table, more=declared)
    first = np.argsort(-score)[:30]
    ids = np.asarray(table["object_id"])
    told = pa.table({"object_id": ids[first], "score": np.where(interesting[first], 5.0, 0.0)})
    found = rerank(catalog.url, told, 25, learner="score_process", fold_radius=0)
    assert " in latent, anomaly_0, anomaly_1, anomaly_2, anomaly_3, from 30" in found.by
    assert interesting[np.searchsorted(ids, np.asarray(found.table["object_id"]))].mean() > 0.8
    blind = rerank(catalog.url, told, 25, learner="score_process", latent="latent", fold_radius=0)
    assert " in latent, from 30" in blind.by
    assert interesting[np.searchsorted(ids, np.asarray(blind.table["object_id"]))].mean() < 0.7


@pytest.mark.slow
def test_trials_measure_what_labels_are_worth() -> None:
    space, score, interesting = two_kinds(500, seed=2)
    found = trials(space, score, interesting, labels=20, following=30, seeds=2, learner="forest")
    assert set(found) == {"active", "random", "unsupervised"}
    order = np.argsort(-score, kind="stable")
    assert found["unsupervised"].following.tolist() == [interesting[order[20:50]].sum()] * 2
    assert found["unsupervised"].error == 0
    totals = {name: float((trial.labelled + trial.following).mean()) for name, trial in found.items()}
    assert totals["active"] > 1.2 * totals["unsupervised"]
    assert found["random"].labelled.mean() < 6
    again = trials(space, score, interesting, labels=20, following=30, seeds=2, learner="forest")
    np.testing.assert_array_equal(again["random"].following, found["random"].following)
    wrong = trials(space, score, interesting, labels=20, following=30, seeds=2, learner="forest", mistakes=0.5)
    assert wrong["active"].mean < found["active"].mean
    with pytest.raises(InputError, match="500 objects are too few"):
        trials(space, score, interesting, labels=480)
