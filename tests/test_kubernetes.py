"""deploy/kubernetes: kustomize makes of it what its kinds allow, it needs no rights, and its commands are ours."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_manifests import VERSIONS, Manifest, built, faults

from tests import universe
from workflows.cli import _parser
from workflows.query import query
from workflows.verbs.arguments import settings

FOLDER = Path(__file__).parents[1] / "deploy" / "kubernetes"
ROOTS = (
    "base",
    "finish",
    "dask",
    "ray",
    *(f"overlays/{path.name}" for path in sorted((FOLDER / "overlays").iterdir())),
)
"""Folders that a user applies."""


def command(container: Manifest) -> list[str]:
    """Arguments of our command in a container, with what Kubernetes and the operators fill in."""
    filled = {"CORES": "4", "DASK_SCHEDULER_ADDRESS": "tcp://host:8786"}
    return [re.sub(r"\$\((\w+)\)", lambda match: filled[match[1]], word) for word in container["args"]]


def keywords(words: list[str], configuration: Path) -> dict[str, Any]:
    """What the function behind a command is called with, read with the folder's file for --config."""
    words = [re.sub(r"^(--config=)?/etc/astroml/\S+", rf"\g<1>{configuration}", word) for word in words]
    return settings(_parser().parse_args(words))


def containers(value: Any) -> Iterator[tuple[Manifest, Manifest]]:
    """Every container below a manifest with its pod."""
    if isinstance(value, dict):
        for one in value.get("containers") or ():
            yield value, one
        for inner in value.values():
            yield from containers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from containers(inner)


def loaded(file: str) -> Manifest:
    return yaml.safe_load((FOLDER / file).read_text())


def test_every_folder_names_files_that_are_there_and_every_file_is_named() -> None:
    named = set()
    for file in FOLDER.rglob("kustomization.yaml"):
        made = yaml.safe_load(file.read_text())
        generated = [name for one in made.get("configMapGenerator", ()) for name in one["files"]]
        for name in [*made.get("resources", ()), *made.get("components", ()), *generated]:
            path = (file.parent / name).resolve()
            assert path.exists(), f"{file}: {name}"
            named.add(path)
            if path.is_dir():
                assert (path / "kustomization.yaml").exists()
        named.add(file)
    examples = set(FOLDER.rglob("*.example.yaml"))
    assert {path for path in FOLDER.rglob("*") if path.is_file()} == {one for one in named if one.is_file()} | examples


def test_commands_are_ours_and_their_options_are_in_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    run = FOLDER / "components" / "run" / "run.toml"
    job = loaded("base/infer-job.yaml")
    ((_, container),) = containers(job)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")  # Kubernetes does that
    for variable in container["env"]:
        if "value" in variable:
            monkeypatch.setenv(variable["name"], variable["value"])
    told = keywords(command(container), run)
    assert told["execution"].shard == (3, job["spec"]["completions"])
    assert told["source"].endswith("survey.zarr")
    assert told["execution"].threads == 4
    assert told["objects"].table == "s3://survey/objects.parquet"
    ((_, finish),) = containers(loaded("finish/finish-job.yaml"))
    whole = keywords(command(finish), run)
    assert whole["execution"].shard is None
    assert {**whole, "execution": None} == {**told, "execution": None}
    runner = next(one for _, one in containers(loaded("dask/daskjob.yaml")) if one["name"] == "infer")
    assert keywords(command(runner), run)["execution"].scheduler == "tcp://host:8786"


SEARCHES = ("ray", "overlays/ray-gpu-kueue")


def test_search_runs_in_the_ray_of_constraints_and_its_trials_fit_the_workers() -> None:
    cluster = loaded("ray/rayjob.yaml")["spec"]["rayClusterSpec"]
    assert f"\nray=={cluster['rayVersion']}\n" in (FOLDER.parents[1] / "constraints.txt").read_text()
    ((_, worker),) = containers(cluster["workerGroupSpecs"])
    for folder in SEARCHES:
        options = tomllib.loads((FOLDER / folder / "search.toml").read_text())
        assert options["execution"]["ray_address"] == "auto"
        assert options.get("gpus", 0) == (1 if "gpu" in folder else 0)
        assert float(worker["resources"]["limits"]["cpu"]) % options["cpus"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("folder", SEARCHES)
def test_search_takes_its_file(folder: str) -> None:
    words = loaded("ray/rayjob.yaml")["spec"]["entrypoint"].split()[1:]
    told = keywords(words, FOLDER / folder / "search.toml")
    assert told["execution"].ray_address == "auto"
    assert told["recipe"] == "ellipticity"


def test_a_failure_is_final_where_a_further_try_cannot_help() -> None:
    for file, action, final in (
        ("base/infer-job.yaml", "FailIndex", [2]),
        ("finish/finish-job.yaml", "FailJob", [2, 3]),
    ):
        spec = loaded(file)["spec"]
        ends, ignored = spec["podFailurePolicy"]["rules"]
        ((pod, container),) = containers(spec)
        assert (ends["action"], ends["onExitCodes"]["values"]) == (action, final)
        assert ends["onExitCodes"]["containerName"] == container["name"]
        assert ignored == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
        assert pod["restartPolicy"] == "Never"  # Kubernetes takes such a policy with no other


def test_examples_hold_no_secret() -> None:
    secret = loaded("secret.example.yaml")
    assert set(secret["stringData"].values()) == {""}
    named = {one["secretRef"]["name"] for _, one in _sources()}
    assert named == {secret["metadata"]["name"]}


def _sources() -> Iterator[tuple[Manifest, Manifest]]:
    for file in ("base/infer-job.yaml", "finish/finish-job.yaml", "dask/daskjob.yaml", "ray/rayjob.yaml"):
        for _, container in containers(loaded(file)):
            for source in container.get("envFrom", ()):
                yield container, source


@pytest.mark.slow
@pytest.mark.parametrize("root", ROOTS)
def test_kustomize_builds_it_and_every_kind_allows_it(root: str) -> None:
    manifests = built(FOLDER / root)
    assert manifests
    for manifest in manifests:
        for version in VERSIONS:
            assert faults(manifest, version) == [], f"{manifest['kind']} {manifest['metadata']['name']} in {version}"
        assert manifest["metadata"]["labels"]["app.kubernetes.io/name"] == "astroml-plugin"


@pytest.mark.slow
@pytest.mark.parametrize("root", ROOTS)
def test_pods_keep_to_the_profile_restricted_and_to_their_limits(root: str) -> None:
    found = list(containers(built(FOLDER / root)))
    assert found
    for pod, container in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        for kind in ("requests", "limits"):
            assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"][kind])
        assert re.fullmatch(r"astroml-plugin(-cuda)?:\d+\.\d+\.\d+", container["image"])
        mounts, volumes = container["volumeMounts"], {one["name"] for one in pod["volumes"]}
        assert {one["name"] for one in mounts} <= volumes
        assert "/tmp" in {one["mountPath"] for one in mounts}, "nothing else can be written to"


@pytest.mark.slow
def test_the_number_of_shards_is_that_of_the_pods(tmp_path: Path) -> None:
    patch = json.dumps([{"op": "replace", "path": "/spec/completions", "value": 37}])
    for folder in ("base", "components"):
        shutil.copytree(FOLDER / folder, tmp_path / folder)
    with (tmp_path / "base" / "kustomization.yaml").open("a") as file:
        file.write(yaml.safe_dump({"patches": [{"target": {"kind": "Job"}, "patch": patch}]}))
    for folder, count in ((FOLDER / "base", 16), (tmp_path / "base", 37)):
        job = next(one for one in built(folder) if one["kind"] == "Job")
        ((_, container),) = containers(job)
        assert job["spec"]["completions"] == count
        assert {"name": "ASTROML_SHARDS", "value": str(count)} in container["env"]


@pytest.mark.slow
def test_overlays_add_what_they_are_named_for() -> None:
    for root in ROOTS:
        manifests = built(FOLDER / root)
        gpus = [one["resources"]["limits"].get("nvidia.com/gpu") for _, one in containers(manifests)]
        assert ("1" in gpus) == ("gpu" in root)
        images = {one["image"].partition(":")[0] for _, one in containers(manifests)}
        assert images == {"astroml-plugin-cuda" if "gpu" in root else "astroml-plugin"}
        queues = {
            one["metadata"]["labels"].get("kueue.x-k8s.io/queue-name") for one in manifests if "Job" in one["kind"]
        }
        assert queues == ({"astroml"} if "kueue" in root else {None})
        claims = [one for one in manifests if one["kind"] == "PersistentVolumeClaim"]
        assert bool(claims) == ("volume" in root)
        if claims:
            ((pod, _),) = containers(manifests)
            assert {"name": "survey", "persistentVolumeClaim": {"claimName": "astroml-survey"}} in pod["volumes"]


@pytest.mark.slow
@pytest.mark.parametrize("file", ["secret.example.yaml", "components/kueue/queues.example.yaml"])
def test_examples_are_allowed(file: str) -> None:
    for manifest in yaml.safe_load_all((FOLDER / file).read_text()):
        assert faults(manifest) == []


MISTAKES = [
    ("base/infer-job.yaml", ("spec", "ttlSecondsAfterFinish"), 60),
    ("base/infer-job.yaml", ("spec", "completions"), "sixteen"),
    ("finish/finish-job.yaml", ("spec", "template", "spec", "securityContext", "runAsNonroot"), True),
    ("base/network-policy.yaml", ("spec", "podselector"), {}),
    ("dask/daskjob.yaml", ("spec", "cluster", "spec", "worker", "replicaz"), 3),
    ("dask/daskjob.yaml", ("spec", "cluster", "spec", "worker", "spec", "containers", 0, "resources", "limit"), {}),
    ("ray/rayjob.yaml", ("spec", "shutdownAfterJobFinished"), True),
    ("ray/rayjob.yaml", ("spec", "rayClusterSpec", "authOptions", "mode"), "tokens"),
    ("ray/rayjob.yaml", ("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
    ("ray/rayjob.yaml", ("spec", "submitterPodTemplate", "spec", "containers", 0, "imagePullpolicy"), "Always"),
    ("ray/rayjob.yaml", ("spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec", "tolerationz"), []),
]


@pytest.mark.slow
@pytest.mark.parametrize(("file", "path", "value"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_is_seen(file: str, path: tuple[Any, ...], value: Any) -> None:
    manifest = copy.deepcopy(loaded(file))
    assert faults(manifest) == []
    place = manifest
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert faults(manifest)


@pytest.mark.slow
def test_scheduler_worker_and_run_of_the_dask_job_work_together(tmp_path: Path) -> None:
    universe.make_survey(str(tmp_path / "survey.zarr"), shape=(200, 300))
    universe.make_objects(tmp_path / "objects.parquet", shape=(200, 300))
    universe.make_bundle(str(tmp_path / "kind"))
    run = 'source = "survey.zarr"\nbundle = ["kind"]\nout = "catalog"\n[objects]\ntable = "objects.parquet"\n'
    (tmp_path / "run.toml").write_text(run)
    pods = {one["name"]: one for _, one in containers(loaded("dask/daskjob.yaml"))}
    programs = {name: [*one.get("command", ["astroml-plugin"]), *one.get("args", ())] for name, one in pods.items()}
    address = tmp_path / "scheduler.json"
    here = ["--port=0", "--dashboard-address=127.0.0.1:0", f"--scheduler-file={address}"]
    scheduler = [word.replace("0.0.0.0", "127.0.0.1") for word in programs["scheduler"]] + here
    with started(scheduler, tmp_path):
        filled = {"DASK_SCHEDULER_ADDRESS": waited(address)["address"], "DASK_WORKER_NAME": "worker-1"}

        def words(name: str) -> list[str]:
            given = [re.sub(r"\$\((\w+)\)", lambda match: filled[match[1]], word) for word in programs[name]]
            return [word.replace("/tmp", str(tmp_path)).replace("/etc/astroml", str(tmp_path)) for word in given]

        with started([*words("worker"), "--host=127.0.0.1"], tmp_path):
            done = subprocess.run(
                python(words("infer")), cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
            )
    assert done.returncode == 0, done.stderr[-3000:]
    assert query(str(tmp_path / "catalog"), "SELECT count(*) AS n FROM catalog").to_arrow()["n"][0].as_py() > 0


def python(words: list[str]) -> list[str]:
    """A program of this environment."""
    return [str(Path(sys.executable).with_name(words[0])), *words[1:]]


@contextmanager
def started(words: list[str], folder: Path) -> Iterator[None]:
    """A program that runs meanwhile."""
    with (folder / f"{words[1]}.log").open("w") as log:
        process = subprocess.Popen(python(words), cwd=folder, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)


def waited(file: Path, seconds: float = 120) -> Manifest:
    """JSON of a file, once it is there."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if file.exists() and file.read_text():
            return json.loads(file.read_text())
        time.sleep(0.2)
    raise AssertionError(f"{file} is not there after {seconds} s")


@pytest.mark.slow
def test_the_folder_that_the_page_shows_is_built(tmp_path: Path) -> None:
    page = (FOLDER.parents[1] / "docs" / "kubernetes.md").read_text()
    found = re.search(r"```yaml\n( *)# deploy/kubernetes/(\S+)\n(.*?)```", page, re.DOTALL)
    for folder in ("base", "components"):
        shutil.copytree(FOLDER / folder, tmp_path / folder)
    (tmp_path / found[2]).parent.mkdir(parents=True)
    (tmp_path / found[2]).write_text("\n".join(line.removeprefix(found[1]) for line in found[3].splitlines()))
    manifests = built((tmp_path / found[2]).parent)
    job = next(one for one in manifests if one["kind"] == "Job")
    assert job["spec"]["parallelism"] == 64
    assert next(containers(job))[1]["image"] == "registry.example.org/astroml-plugin:0.1.0"
    assert [fault for one in manifests for fault in faults(one)] == []
