"""Fields of KubeRay's and Kueue's kinds as far as deploy/kubernetes could use them, as JSON schemas.

Read by hand from the Go types: KubeRay's `ray-operator/apis/ray/v1/rayjob_types.go` and `raycluster_types.go` of 2026,
Kueue's `apis/kueue/v1beta2`. Pod templates within are open here; they are checked as pods of Kubernetes.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
QUANTITY: Schema = {"type": ["integer", "string"]}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
ANY: Schema = {"type": "object"}


def _all(schema: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": schema}


def _one_of(*values: str) -> Schema:
    return {"enum": list(values)}


def _object(required: tuple[str, ...] = (), **fields: Schema) -> Schema:
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


def _kind(spec: Schema) -> Schema:
    return _object(("apiVersion", "kind", "metadata"), apiVersion=TEXT, kind=TEXT, metadata=ANY, spec=spec)


_GROUP = {"rayStartParams": TEXTS, "template": ANY, "resources": TEXTS, "labels": TEXTS}

_CLUSTER = _object(
    ("headGroupSpec",),
    rayVersion=TEXT,
    suspend=FLAG,
    enableInTreeAutoscaling=FLAG,
    authOptions=_object(mode=_one_of("disabled", "token"), secretName=TEXT, enableK8sTokenAuth=FLAG),
    headGroupSpec=_object(
        ("template",),
        **_GROUP,
        serviceType=_one_of("ClusterIP", "NodePort", "LoadBalancer"),
        headService=ANY,
        enableIngress=FLAG,
    ),
    workerGroupSpecs=_all(
        _object(
            ("groupName", "template"),
            **_GROUP,
            groupName=TEXT,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            numOfHosts=COUNT,
            idleTimeoutSeconds=COUNT,
        )
    ),
)

_JOB = _object(
    entrypoint=TEXT,
    rayClusterSpec=_CLUSTER,
    submitterPodTemplate=ANY,
    submitterConfig=_object(backoffLimit=COUNT),
    submissionMode=_one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    activeDeadlineSeconds={"type": "integer", "minimum": 1},
    backoffLimit=COUNT,
    clusterSelector=TEXTS,
    metadata=TEXTS,
    managedBy=_one_of("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"),
    runtimeEnvYAML=TEXT,
    jobId=TEXT,
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    entrypointResources=TEXT,
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    suspend=FLAG,
)

_FLAVOR = _object(nodeLabels=TEXTS, nodeTaints=_all(ANY), tolerations=_all(ANY), topologyName=TEXT)

_QUOTA = _object(
    ("name", "nominalQuota"), name=TEXT, nominalQuota=QUANTITY, borrowingLimit=QUANTITY, lendingLimit=QUANTITY
)

_QUEUE = _object(
    namespaceSelector=ANY,
    queueingStrategy=_one_of("StrictFIFO", "BestEffortFIFO"),
    stopPolicy=_one_of("None", "Hold", "HoldAndDrain"),
    preemption=ANY,
    flavorFungibility=ANY,
    resourceGroups=_all(
        _object(
            ("coveredResources", "flavors"),
            coveredResources=_all(TEXT),
            flavors=_all(_object(("name", "resources"), name=TEXT, resources=_all(_QUOTA))),
        )
    ),
)

_LOCAL_QUEUE = _object(clusterQueue=TEXT, stopPolicy=_one_of("None", "Hold", "HoldAndDrain"))

BY_HAND: dict[tuple[str, str], Schema] = {
    ("ray.io/v1", "RayJob"): _kind(_JOB),
    ("kueue.x-k8s.io/v1beta2", "ResourceFlavor"): _kind(_FLAVOR),
    ("kueue.x-k8s.io/v1beta2", "ClusterQueue"): _kind(_QUEUE),
    ("kueue.x-k8s.io/v1beta2", "LocalQueue"): _kind(_LOCAL_QUEUE),
}
"""(apiVersion, kind) -> JSON schema."""
