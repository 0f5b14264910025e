"""Networks on a CPU in other runtimes than torch: ONNX Runtime and OpenVINO, both from one ONNX graph."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from astroml_plugin.compute import onnx_graph
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.private import private_folder

_PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}


def runtime_problem(runtime: str, device: str) -> str:
    """Why a runtime cannot be used in this process, as one sentence; empty where it can."""
    if torch.device(device).type != "cpu":
        return f"backend {runtime} runs on a CPU and the device is {device}: add --device cpu, or leave --backend away"
    lacking = [name for name in _PACKAGES[runtime] if importlib.util.find_spec(name) is None]
    if lacking:
        return f'backend {runtime} needs the package {lacking[0]}: pip install "astroml-plugin[{runtime}]"'
    return ""


def cached_graph(network: nn.Module, inputs: Sequence[Tensor], key: Sequence[Any], stride: int = 0) -> bytes:
    """A network as ONNX, kept in this user's private folder: to make it takes seconds.

    Args:
        network: in eval mode on the CPU.
        inputs: of some objects.
        key: plain values that tell this network from all others.
        stride: as for `onnx_graph.graph_of`.
    """
    versions = [torch.__version__, *(getattr(importlib.import_module(name), "__version__", "") for name in ("onnx",))]
    try:
        path = private_folder("graphs") / f"{storage.digest(list(key), versions)}.onnx"
    except (InputError, OSError):  # no place of ours: nothing is kept
        return onnx_graph.graph_of(network, inputs, stride)
    if path.exists() and (kept := _whole(path.read_bytes())):
        return kept
    graph = onnx_graph.graph_of(network, inputs, stride)
    storage.write_atomic(str(path), hashlib.sha256(graph).digest() + graph)
    return graph


def _whole(content: bytes) -> bytes:
    """The graph of a kept file; empty where the file is damaged."""
    return content[32:] if hashlib.sha256(content[32:]).digest() == content[:32] else b""


@dataclass
class RuntimeForward:
    """A network in another runtime, called like `Forward`; each thread has a session of its own, of its torch threads.

    No session has threads of its own where torch has one.
    """

    runtime: str
    """One of `choices.RUNTIMES`."""
    graph: bytes = field(repr=False)
    """The network as ONNX."""
    half: bool = False
    """bfloat16 where the CPU has it; OpenVINO only."""
    _own: threading.local = field(default_factory=threading.local, repr=False)

    @property
    def form(self) -> str:
        """Runtime and number format."""
        return f"{self.runtime} {'bfloat16' if self.half else 'float32'}"

    def __call__(self, inputs: Sequence[Tensor], batch: int) -> Tensor:
        """(n, outputs) from inputs of n objects on the CPU, n of any number; `batch` is not looked at."""
        given = [item.contiguous() for item in inputs]
        if hasattr(self._own, "session"):
            return cast(Tensor, self._own.session(given))
        with _first_calls:
            make = {"onnx": _onnx_session, "openvino": _openvino_session}[self.runtime]
            self._own.session = make(self.graph, torch.get_num_threads(), self.half)
            return cast(Tensor, self._own.session(given))


_first_calls = threading.Lock()
"""Two threads whose first calls of OpenVINO meet wait for each other for ever: one holds the GIL, the other what is
made once (seen with 2026.4; the same in other bindings by pybind11)."""


Session = Callable[[Sequence[Tensor]], Tensor]


def _onnx_session(graph: bytes, threads: int, half: bool) -> Session:
    session = onnx_graph.opened(importlib.import_module("onnxruntime"), graph, threads)
    names = [item.name for item in session.get_inputs()]

    def call(inputs: Sequence[Tensor]) -> Tensor:
        return torch.from_numpy(session.run(None, dict(zip(names, (item.numpy() for item in inputs))))[0])

    return call


def _openvino() -> Any:
    """OpenVINO without its telemetry: that would tell a server of the import, and fork for it."""
    silenced = "openvino_telemetry" not in sys.modules
    if silenced:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        if silenced:
            del sys.modules["openvino_telemetry"]


def _openvino_session(graph: bytes, threads: int, half: bool) -> Session:
    core = _openvino().Core()
    how: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        "ENABLE_CPU_PINNING": False,  # sessions of several threads would all sit on the same core
    }
    request = core.compile_model(core.read_model(model=io.BytesIO(graph)), "CPU", how).create_infer_request()

    def call(inputs: Sequence[Tensor]) -> Tensor:
        found = request.infer({number: item.numpy() for number, item in enumerate(inputs)}, share_inputs=True)
        return torch.from_numpy(found[0].copy())

    return call
