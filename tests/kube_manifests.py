"""Kubernetes manifests as kustomize builds them, and what is wrong with one.

Schemas of core kinds are those of kubernetes-validate; the operator of Dask has its own in its wheel. No package has
those of KubeRay and Kueue: `kube_schemas` holds them.
"""

from __future__ import annotations

import copy
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from deploy_environment import module, prepared
from kube_schemas import BY_HAND

VERSIONS = ("1.29", "1.37")
"""Kubernetes versions that manifests must be valid for: the oldest that has all they use, and the newest known."""

Manifest = dict[str, Any]


def built(overlay: Path) -> list[Manifest]:
    """The manifests that kustomize makes of a folder; AssertionError with its words where it refuses."""
    done = subprocess.run([prepared() / "kubectl", "kustomize", overlay], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def faults(manifest: Manifest, version: str = VERSIONS[-1]) -> list[str]:
    """What is wrong with a manifest, fields that its kind does not have included; empty where it is valid."""
    group, kind = manifest["apiVersion"].partition("/")[0], manifest["kind"]
    if group == "kubernetes.dask.org":
        return _faults(manifest, _dask_schemas()[kind])
    if (schema := BY_HAND.get((manifest["apiVersion"], kind))) is not None:
        return _faults(manifest, schema) + [fault for pod in _pods(manifest) for fault in _core(pod, version)]
    return _core(manifest, version)


def _core(manifest: Manifest, version: str) -> list[str]:
    validator = module("kubernetes_validate")
    try:
        validator.validate(copy.deepcopy(manifest), version, strict=True)
    except (validator.ValidationError, validator.InvalidSchemaError, validator.SchemaNotFoundError) as error:
        return [str(getattr(error, "message", error))]
    return []


def _pods(manifest: Manifest) -> list[Manifest]:
    """The pod templates within a RayJob, each as a manifest of its own."""
    spec = manifest.get("spec", {})
    cluster = spec.get("rayClusterSpec", {})
    groups = [cluster.get("headGroupSpec", {}), *cluster.get("workerGroupSpecs", ())]
    templates = [*(group.get("template") for group in groups), spec.get("submitterPodTemplate")]
    return [{"apiVersion": "v1", "kind": "PodTemplate", "template": template} for template in templates if template]


@cache
def _dask_schemas() -> dict[str, Any]:
    """Kind -> JSON schema, from the definitions that the Dask operator installs, closed to unknown fields."""
    schemas = {}
    for file in prepared().glob("dask_kubernetes/operator/deployment/helm/*/crds/*.yaml"):
        definition = yaml.safe_load(file.read_text())["spec"]
        schema = closed(definition["versions"][0]["schema"]["openAPIV3Schema"])
        schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
        schemas[definition["names"]["kind"]] = schema
    return schemas


def closed(schema: Any) -> Any:
    """An OpenAPI schema of a custom kind as JSON schema that allows no fields but its own."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = {name: closed(value) for name, value in schema.items()}
    free = made.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in made
    if made.get("type") == "object" and "properties" in made and not free:
        made["additionalProperties"] = False
    return made


def _faults(manifest: Manifest, schema: Any) -> list[str]:
    found = jsonschema.Draft202012Validator(schema).iter_errors(manifest)
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in found]
