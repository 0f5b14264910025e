"""Bulk inference: which units are done already, and the run over a Dask client."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
from distributed import Client
from distributed.core import CommClosedError

from astroml_plugin.catalog import Catalog, PartInfo
from astroml_plugin.catalog.beside import FAILURES_SCHEMA
from astroml_plugin.catalog.done import DoneUnits, part_of
from astroml_plugin.catalog.labels import LabelMaps
from astroml_plugin.catalog.superseded import drop_superseded
from astroml_plugin.compute.choices import RUNTIMES
from astroml_plugin.compute.cluster import check_client, client_of, connecting, dashboard_urls, run_window
from astroml_plugin.compute.cluster.hosts import Claim, competing, own_claim
from astroml_plugin.compute.cluster.places import wait_for_worker
from astroml_plugin.compute.device import choose_device, device_problem
from astroml_plugin.compute.runtimes import runtime_problem
from astroml_plugin.core import storage, version
from astroml_plugin.core.errors import InputError
from astroml_plugin.inference.deciding import check_forms, decided_on
from astroml_plugin.inference.job import Job, OutputError, Unit, UnitResult
from astroml_plugin.inference.meter import bottleneck
from astroml_plugin.inference.options import ExecutionOptions
from astroml_plugin.inference.reports import Progress, RunObserver, RunProgress
from astroml_plugin.inference.resident import ResidentModels
from astroml_plugin.inference.unit import run_unit
from astroml_plugin.pixels import native

FLUSH_SECONDS = 5.0
"""Interval at which finished parts are written to the manifest while a run goes on."""

_FIRST_WORKER = 300.0
"""Seconds that a worker is waited for which decides something for all."""

RECENT_UNITS = 32
"""Units that the present bottleneck is judged by."""


@dataclass
class _Run:
    """The moving parts of a run on the driver."""

    catalog: Catalog
    run_id: str
    progress: Progress | None
    stand: RunProgress
    started: float = field(default_factory=time.perf_counter)
    flushed: float = field(default_factory=time.perf_counter)
    parts: list[PartInfo] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    superseded: list[tuple[str, str]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    """Files of units done before that could not be read: their units are done again."""
    maps: LabelMaps | None = None
    """Where label maps go; None where none are wanted."""
    recent: deque[Mapping[str, float]] = field(default_factory=deque)
    lately: Counter[str] = field(default_factory=Counter)
    """Seconds by stage, summed over `recent`."""

    def to_do(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """Units that no part (or no label map) holds yet; the others are counted as skipped."""
        done = DoneUnits.of(self.catalog)
        mapped = None if self.maps is None else self.maps.present()
        self.damaged = done.damaged
        for unit, there in done.looked_at(units):
            if done.others(unit):
                self.superseded.append((unit.name, unit.digest))
            if there and (mapped is None or unit.index in mapped):
                self.update(skipped=self.stand.skipped + 1)
            else:
                yield unit

    def survived(self, unit: Unit) -> UnitResult | None:
        """Rows that a worker had finished before it died: part and label map are there."""
        if self.maps is not None and unit.index not in self.maps.present():
            return None
        part = part_of(self.catalog, unit)
        return None if part is None else UnitResult(part)

    def update(self, **changes: Any) -> None:
        self.stand = replace(self.stand, seconds=time.perf_counter() - self.started, **changes)
        if self.progress is not None:
            self.progress(self.stand)

    def finished(self, unit: Unit, result: UnitResult) -> None:
        self.parts.append(result.part)
        sums: dict[str, Any] = {}
        for name in ("seconds", "bytes", "centres", "forms", "unlike"):
            target = "stages" if name == "seconds" else name
            sums[target] = so_far = dict(getattr(self.stand, target))
            for key, value in getattr(result, name).items():
                so_far[key] = so_far.get(key, 0) + value
        if result.device:  # which is not known of a unit whose worker died after it
            sums["devices"] = {**self.stand.devices}
            sums["devices"][result.device] = sums["devices"].get(result.device, 0) + result.part.rows
        if result.refused:
            sums["refused"] = tuple(sorted({*self.stand.refused, *result.refused}))
        self.lately.update(result.seconds)
        self.recent.append(result.seconds)
        if len(self.recent) > RECENT_UNITS:
            self.lately.subtract(self.recent.popleft())
        done, rows = self.stand.done + 1, self.stand.rows + result.part.rows
        self.update(done=done, rows=rows, bottleneck=bottleneck(self.lately), **sums)

    def failed(self, unit: Unit, error: BaseException, attempts: int) -> None:
        reason = storage.redact(f"{type(error).__name__}: {error}")
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.failures.append({"unit": unit.name, "reason": reason, "attempts": attempts, "time": stamp})
        self.update(failed=self.stand.failed + 1)

    def flush(self, *, now: bool = False) -> None:
        """Write finished parts to the manifest, now or when some seconds have passed."""
        if self.parts and (now or time.perf_counter() - self.flushed > FLUSH_SECONDS):
            self.catalog.commit_manifest(self.run_id, self.parts)
            self.parts = []
            self.flushed = time.perf_counter()


def execute(
    client: Client,
    units: Iterable[Unit],
    catalog: Catalog,
    *,
    run_id: str,
    total: int,
    label_maps: LabelMaps | None = None,
    progress: Progress | None = None,
    unit_timeout: float | None = None,
) -> RunProgress:
    """Run all units that are not done yet, through the bounded window, and keep the catalog's books.

    Args:
        client: Dask client; models are dropped from its workers at the end.
        units: of one run, lazily.
        catalog: where parts go.
        run_id: of `catalog.start_run`.
        total: number of units, for progress.
        label_maps: where label maps go; None where none are wanted.
        progress: called with a `RunProgress` after every unit.
        unit_timeout: seconds after which a unit is taken to hang; None waits for ever.

    Raises:
        OutputError: the catalog cannot be written.
        InputError: the workers run another version of this package.
    """
    plugin, ways = prepare_workers(client)
    run = _Run(catalog, run_id, progress, RunProgress(total, ways=ways), maps=label_maps)
    todo = run.to_do(units)
    try:
        for outcome in run_window(
            client, run_unit, todo, timeout=unit_timeout, total=total or None, survived=run.survived
        ):
            if isinstance(outcome.error, OutputError):
                raise outcome.error
            if outcome.error is not None:
                run.failed(outcome.item, outcome.error, outcome.attempts)
            else:
                run.finished(outcome.item, outcome.value)
            run.flush()
    finally:
        run.flush(now=True)
        catalog.write_failures(pa.Table.from_pylist(run.failures, schema=FAILURES_SCHEMA), run_id)
        release_workers(client, plugin)
    if run.superseded:
        drop_superseded(catalog, run_id, run.superseded)
    return replace(run.stand, damaged=len(run.damaged), seconds=time.perf_counter() - run.started)


@dataclass
class RunWorkers:
    """Client of a run: connected when it is first needed, which is late, unless workers must be asked before."""

    stack: contextlib.ExitStack
    """Closes what was started."""
    given: Client | str | None
    """A client or address that the caller has; None starts a cluster."""
    observer: RunObserver
    """Hears of the pages of the cluster."""
    _client: Client | None = None

    def connected(self, how: ExecutionOptions) -> Client:
        """The client, connected."""
        if self._client is None:
            self._client = self.stack.enter_context(client_of(self.given, **connecting(how)))
            self.observer.connected(dashboard_urls(self._client))
        return self._client

    def decide(self, job: Job) -> dict[str, str]:
        """Forms of the rows by bundle: one of the workers decides."""
        client = self.connected(job.execution)
        wait_for_worker(client, _FIRST_WORKER)
        _ask_all(client, _running)
        check_workers(client, job)
        return decided_on(client, job)


def check_workers(client: Client, job: Job) -> None:
    """Raise InputError where a worker cannot use the torch device, backend or form of rows that the run has."""
    device, backend = job.execution.device, job.execution.backend
    told = [] if device is None else [problem for problem in client.run(device_problem, device).values() if problem]
    if told:
        raise InputError(f"device {device} cannot be used by {len(told)} of the workers ({told[0]}): name another one")
    if backend in RUNTIMES and any(lacking := client.run(_backend_problem, backend, device).values()):
        raise InputError(next(problem for problem in lacking if problem))
    check_forms(client, job)


def _backend_problem(backend: str, device: str | None) -> str:
    return runtime_problem(backend, device or choose_device())


def _running() -> tuple[tuple[str, str], str, Claim]:
    """The code that this process runs (`version.running`), its `native.way`, and its cores (`own_claim`)."""
    return version.running(), native.way(), own_claim()


def _ask_all(client: Client, function: Callable[[], Any]) -> dict[str, Any]:
    """Answers of all workers by their address."""
    try:
        told: dict[str, Any] = client.run(function)
    except Exception as error:
        raise InputError(
            f"the workers cannot import astroml_plugin ({type(error).__name__}): "
            f"install version {version.version()} there"
        ) from error
    return told


def prepare_workers(client: Client) -> tuple[str, Mapping[str, int]]:
    """Check that every worker runs this code, and put the plugin there; gives its name, and workers by `native.way`."""
    check_client(client)
    told = _ask_all(client, _running)
    versions = {address: code for address, (code, *_) in told.items()}
    if wrong := version.others(versions.values()):
        raise InputError(
            f"workers run astroml_plugin {wrong}, this is {version.version()} (code {version.code_digest()}): "
            "install the same version there"
        )
    claims = [(address.rpartition(":")[0], claim) for address, (_, _, claim) in told.items()]
    most = max(Counter(host for host, _ in claims).values(), default=1)
    plugin = ResidentModels(uuid.uuid4().hex, most, version.running(), competing(claims))
    client.register_plugin(plugin)
    return plugin.name, Counter(way for _, way, _ in told.values())


def release_workers(client: Client, plugin: str) -> None:
    """Take the run's plugin from the workers; whatever hinders that takes nothing from what was done."""
    if client.status == "running":
        with contextlib.suppress(OSError, ValueError, CommClosedError):
            client.unregister_worker_plugin(plugin)
