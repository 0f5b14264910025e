"""A whole run in an object store behind a slow network that fails, and through a restart of the server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import universe
from tests.test_infer import assert_same, rows
from workflows.cli import main
from workflows.infer import infer

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

from tests.object_store import KEY, SECRET, Network, S3Server, in_environment

BUCKET = "s3://flaky"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Survey, objects and bundle on the local disk, and the catalog of an undisturbed run there."""
    folder = tmp_path_factory.mktemp("given")
    universe.make_survey(str(folder / "survey.zarr"), shape=(200, 300))
    universe.make_objects(folder / "objects.parquet", shape=(200, 300))
    universe.make_bundle(str(folder / "kind"))
    infer(
        str(folder / "survey.zarr"),
        bundle=str(folder / "kind"),
        objects=str(folder / "objects.parquet"),
        out=str(folder / "undisturbed"),
    )
    return folder


@pytest.fixture(scope="module")
def server(given: Path) -> Iterator[S3Server]:
    """An S3 server that holds all of it."""
    running = S3Server()
    with in_environment(running.port) as store:
        store.mkdir("flaky")
        for name in ("survey.zarr", "kind"):
            store.put(f"{given / name}/", f"flaky/{name}/", recursive=True)
        store.put(str(given / "objects.parquet"), "flaky/objects.parquet")
    yield running
    running.stop()


def command(out: str) -> list[str]:
    """A run that knows no local file."""
    source, bundle, objects = f"{BUCKET}/survey.zarr", f"{BUCKET}/kind", f"{BUCKET}/objects.parquet"
    return ["infer", source, "--bundle", bundle, "--objects", objects, "--out", out]


@pytest.mark.slow
def test_slow_answers_and_failing_requests_change_no_row_and_no_key_is_written(
    given: Path, server: S3Server, capfd: pytest.CaptureFixture[str]
) -> None:
    out = f"{BUCKET}/catalog"
    network = Network(server.port)
    with in_environment(network.port) as store:
        status = main(command(out))
        printed = "".join(capfd.readouterr())
        assert status == 0, printed
        assert network.requests > 100
        assert network.failed >= network.requests // network.every > 0
        assert_same(rows(given / "undisturbed"), rows(out))  # type: ignore[arg-type]
        written = {name: store.cat(name) for name in store.find("flaky/catalog")}
    network.close()
    assert len(written) > 10
    for secret in (KEY, SECRET):
        assert secret not in printed
        assert [name for name, data in written.items() if secret.encode() in data] == []


@pytest.mark.slow
def test_a_server_that_restarts_costs_no_row(given: Path, server: S3Server) -> None:
    out = f"{BUCKET}/restarted"
    network = Network(server.port, delay=(0.0, 0.01), every=10**9)
    accidents: list[float] = []

    def accident() -> None:
        while network.requests < 120:  # some units are done, others under way
            time.sleep(0.01)
        server.stop()
        time.sleep(1.5)
        server.start()
        accidents.append(network.requests)

    with in_environment(network.port):
        restarting = threading.Thread(target=accident)
        restarting.start()
        result = infer(
            f"{BUCKET}/survey.zarr", bundle=f"{BUCKET}/kind", objects=f"{BUCKET}/objects.parquet", out=out, threads=2
        )
        restarting.join(timeout=60)
        assert accidents
        assert network.requests > accidents[0]  # there was work left
        if result.units_failed:  # the outage outlasted a unit's patience: it is listed, and done next time
            again = infer(
                f"{BUCKET}/survey.zarr", bundle=f"{BUCKET}/kind", objects=f"{BUCKET}/objects.parquet", out=out
            )
            assert (again.units_failed, again.units_done) == (0, result.units_failed)
        assert_same(rows(given / "undisturbed"), rows(out))  # type: ignore[arg-type]
    network.close()
