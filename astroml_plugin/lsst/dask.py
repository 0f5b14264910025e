"""Quanta of a graph as Dask futures: each worker process keeps its networks from one quantum to the next.

No database is written meanwhile: `butler transfer-from-graph` registers what was made, at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import networkx
from lsst.daf.butler import QuantumBackedButler
from lsst.pipe.base.quantum_graph import PredictedQuantumGraph
from lsst.pipe.base.single_quantum_executor import SingleQuantumExecutor


def submit_quanta(client: Any, graph: str, butler: str) -> dict[UUID, Any]:
    """One future for each quantum; it waits for those whose outputs the quantum reads, and fails where one has failed.

    Start the workers with one thread each: the middleware's log of a quantum is that of its process.

    Args:
        client: of Dask, whose workers reach both files.
        graph: file of `pipetask qgraph --save-qgraph`, for which `pipetask pre-exec-init-qbb` was run.
        butler: the repository.

    Returns:
        Id of the quantum -> future, in an order in which they can run; the result is the label of the task.
    """
    read = PredictedQuantumGraph.read_execution_quanta(graph)
    edges, futures = read.quantum_only_xgraph, dict[UUID, Any]()
    for quantum_id in networkx.topological_sort(edges):
        before = [futures[other] for other in edges.predecessors(quantum_id)]
        label = edges.nodes[quantum_id]["task_label"]
        futures[quantum_id] = client.submit(
            run_quantum, graph, butler, quantum_id, before, key=f"{label}-{quantum_id}", pure=False
        )
    return futures


def run_quantum(graph: str, butler: str, quantum_id: UUID, _before: Sequence[str] = ()) -> str:
    """Run one quantum here; a quantum that has run already is left alone.

    Args:
        graph: file of the graph.
        butler: the repository.
        quantum_id: the quantum.

    Returns:
        The label of its task.
    """
    read = PredictedQuantumGraph.read_execution_quanta(graph, quantum_ids=[quantum_id])
    types = {node.name: node.dataset_type for node in read.pipeline_graph.dataset_types.values()}
    universe = read.pipeline_graph.universe
    executor = SingleQuantumExecutor(
        limited_butler_factory=lambda quantum: QuantumBackedButler.initialize(
            butler, quantum, dimensions=universe, dataset_types=types
        ),
        skip_existing=True,
        clobber_outputs=True,
    )
    node = read.quantum_only_xgraph.nodes[quantum_id]
    executor.execute(node["pipeline_node"], read.build_execution_quanta([quantum_id])[quantum_id], quantum_id)
    return str(node["task_label"])
