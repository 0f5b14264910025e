"""Data of strangers in every reader end in success or one sentence with exit status 2, in time and bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings

from astroml_plugin.compute.cluster import connect
from tests import reliability
from tests.fuzz import arrays, bundles, network, outcomes, records, tables

torch.set_num_threads(1)

KEPT = Path(__file__).parent / "fuzz" / "kept"

KINDS: dict[str, tuple[Callable[[Path, Any], Any], int, int]] = {
    "cards": (lambda folder, client: bundles.Cards(folder), 20, 1200),
    "weights": (lambda folder, client: bundles.Weights(folder), 20, 1200),
    "checkpoints": (lambda folder, client: bundles.Checkpoints(folder), 40, 1500),
    **{
        kind: (lambda folder, client, kind=kind: tables.ObjectTables(folder, kind), fast, long)
        for kind, fast, long in (
            *(("csv", 50, 2500), ("fits", 25, 1500), ("vot", 25, 1500), ("parquet", 30, 2000), ("cat", 15, 800)),
        )
    },
    "npz": (lambda folder, client: arrays.Archives(folder, client), 30, 1500),
    "image": (lambda folder, client: arrays.Images(folder, client), 12, 800),
    "recipes": (lambda folder, client: records.Recipes(folder), 40, 1500),
    "config": (lambda folder, client: records.ConfigFiles(folder), 20, 1000),
    "scores": (lambda folder, client: records.Scores(folder), 40, 2000),
    "catalogs": (lambda folder, client: records.Catalogs(folder), 6, 400),
    "studies": (lambda folder, client: records.Studies(folder), 25, 800),
    "stores": (lambda folder, client: records.Stores(folder), 10, 500),
    "http": (lambda folder, client: network.Http(folder, client), 16, 600),
    "page": (lambda folder, client: network.Page(folder), 60, 2500),
}
"""Kind -> what makes and reads its inputs, inputs in `make test`, inputs in `make test-all`."""


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A cluster of one thread, for what is ingested."""
    with connect("local", threads=1) as opened:
        yield opened


def fuzz(name: str, folder: Path, client: Any, examples: int) -> Counter[str]:
    """Read so many inputs of a kind, always the same ones; counts by outcome."""
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        stack.enter_context(network.quick())
        kind = KINDS[name][0](folder, client)
        stack.callback(getattr(kind, "close", lambda: None))
        remote = getattr(kind, "remote", False)

        @settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(kind.strategy)
        def read(case: Any) -> None:
            counts[outcomes.outcome(lambda: kind.run(case), remote=remote)] += 1

        read()
    counts["kind"] = kind.name  # type: ignore[assignment]
    return counts


@pytest.mark.parametrize("name", KINDS)
def test_foreign_input_is_read_or_refused_in_one_sentence(name: str, tmp_path: Path, client: Any) -> None:
    counts = fuzz(name, tmp_path, client, KINDS[name][1])
    assert counts[outcomes.REFUSED] > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", KINDS)
def test_much_foreign_input(name: str, tmp_path: Path, client: Any) -> None:
    counts = fuzz(name, tmp_path, client, KINDS[name][2])
    read, refused = counts[outcomes.READ], counts[outcomes.REFUSED]
    assert read > 0
    assert read + refused >= KINDS[name][2] * 0.9
    reliability.keep("fuzz", [[counts["kind"], read + refused, read, refused]])


def test_the_long_run_has_at_least_twenty_thousand_inputs() -> None:
    assert sum(long for _, _, long in KINDS.values()) >= 20_000


@pytest.mark.parametrize("file", sorted(KEPT.iterdir()), ids=lambda file: file.name)
def test_inputs_that_once_ended_in_a_traceback(file: Path, tmp_path: Path, client: Any) -> None:
    readers: dict[str, Callable[[], Any]] = {
        "npz": lambda: arrays.Archives(tmp_path, client),
        "image": lambda: arrays.Images(tmp_path, client),
        "table": lambda: tables.ObjectTables(tmp_path, file.suffix.removeprefix(".")),
    }
    if file.name.startswith("scores"):
        kind = records.Scores(tmp_path)
        kind.file.write_bytes(file.read_bytes())
        outcomes.outcome(kind.read)
    else:
        kind = readers[file.name.partition("_")[0]]()
        outcomes.outcome(lambda: kind.read(file.read_bytes()))
