"""Which runtime a network's forward uses: plain torch, or one that answers alike and was measured to be faster."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from astroml_plugin.compute.choices import RUNTIMES
from astroml_plugin.compute.forward import HALF_GAP, Forward, difference
from astroml_plugin.compute.precision import COMPILED, TORCH, HalfForm
from astroml_plugin.compute.runtimes import RuntimeForward, runtime_problem
from astroml_plugin.core import foreign
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.tracing import calling

ROUNDING = 3e-5
"""Largest `difference` from plain torch that another runtime may have in float32."""

PATIENCE = 30.0
"""Core-seconds that plain torch works on a network before another runtime is tried by itself: one takes some 10 to be
made. Who has used 30 has, as a rule, as much to do still; a short run never pays."""

WORTH = 0.9
"""Part of plain torch's time that another runtime may take to be chosen by itself."""

ROUNDS = 3
"""Times that plain torch and another runtime are measured in turns."""


@dataclass
class ForwardChoice:
    """A network in this process in plain torch or in another runtime, whichever is to be used.

    A runtime is used where its answers to drawn stamps and to the first batch of the run are those of plain torch in
    float32 (`ROUNDING`; half precision `HALF_GAP`). In half precision nothing is chosen: all rows of a catalog are of
    one form. Several threads may call it.
    """

    plain: Forward
    """The network in torch."""
    backend: str
    """One of `choices.BACKENDS`."""
    graph: Callable[[], bytes]
    """Makes the network's ONNX graph."""
    example: Callable[[], Sequence[Tensor]]
    """Gives inputs of some drawn objects."""
    name: str = "?"
    """Name of the bundle, for messages."""
    form: HalfForm | None = None
    """How all rows of the catalog are calculated, in half precision; None: in float32."""
    refused: tuple[str, ...] = ()
    """Sentences about runtimes that were asked for and not used."""
    _chosen: Forward | RuntimeForward | None = None
    _spent: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        if self.form is not None:
            if self.form.runtime in (TORCH, COMPILED):
                self._chosen = self.plain
        elif self.backend in RUNTIMES:
            if problem := runtime_problem(self.backend, str(self.plain.device)):
                raise InputError(problem)
        elif not self.candidates():
            self._chosen = self.plain

    def __call__(self, inputs: Sequence[Tensor], batch: int) -> tuple[Tensor, str]:
        """(n, outputs) from inputs of n <= `batch` objects, and the form that gave them: runtime and number format."""
        form = self._chosen
        if form is None and (self.form is not None or self.backend in RUNTIMES):
            with self._lock:
                form = self._chosen = self._chosen or self._asked_for(inputs, batch)
        if form is not None:
            return self._answered(form, inputs, batch)
        began = time.thread_time()
        outputs = self.plain(inputs, batch)
        self._spent += (time.thread_time() - began) * torch.get_num_threads()
        if self._spent > PATIENCE and self._lock.acquire(blocking=False):
            try:
                self._chosen = self._chosen or self._fastest(inputs, batch)
            finally:
                self._lock.release()
        return outputs, self.plain.form

    def _answered(self, form: Forward | RuntimeForward, inputs: Sequence[Tensor], batch: int) -> tuple[Tensor, str]:
        """Outputs of a form; those of plain torch, from now on, where another runtime fails."""
        if not isinstance(form, RuntimeForward):
            return form(inputs, batch), form.form
        try:
            return form(inputs, batch), form.form
        except Exception as error:
            if self.form is not None:
                raise self._refusal(foreign.in_words(error)) from error
            self._chosen = self.plain
            self.refused = (f"bundle {self.name} ran on torch after {form.runtime} failed ({foreign.in_words(error)})",)
            return self.plain(inputs, batch), self.plain.form

    def _refusal(self, reason: str) -> InputError:
        return InputError(
            f"rows of bundle {self.name} are of {self.form} in this catalog, and that fails here ({reason}): run on "
            f"other machines, or begin another catalog with --precision float32"
        )

    def candidates(self) -> list[str]:
        """Runtimes that may be tried without being asked for."""
        if self.backend != "auto" or self.plain.compile_after == 0:
            return []
        return [name for name in RUNTIMES if not runtime_problem(name, str(self.plain.device))]

    def _asked_for(self, inputs: Sequence[Tensor], batch: int) -> Forward | RuntimeForward:
        """The runtime that was asked for; plain torch in float32 where its answers differ, or it cannot be made."""
        if self.form is None:
            made = self.made(self.backend, inputs, batch)
        else:
            made = self.made(self.form.runtime, inputs, batch, half=True)
        if isinstance(made, RuntimeForward):
            return made
        if self.form is not None:
            raise self._refusal(made)
        self.refused = (f"bundle {self.name} ran on torch, not on {self.backend}: {made}",)
        return self.plain

    def _fastest(self, inputs: Sequence[Tensor], batch: int) -> Forward | RuntimeForward:
        """The fastest form on these inputs."""
        best: tuple[float, Forward | RuntimeForward] = (WORTH, self.plain)
        for name in self.candidates():
            made = self.made(name, inputs, batch)
            if isinstance(made, RuntimeForward):
                best = min(best, (self.relative(made, inputs, batch), made), key=lambda one: one[0])
        return best[1]

    def made(self, runtime: str, inputs: Sequence[Tensor], batch: int, *, half: bool = False) -> RuntimeForward | str:
        """A runtime whose answers are right; else why it cannot be used.

        Args:
            runtime: one of `choices.RUNTIMES`.
            inputs: of objects of the run.
            batch: objects per forward.
            half: in bfloat16; OpenVINO only.
        """
        allowed = HALF_GAP if half else ROUNDING
        try:
            made = RuntimeForward(runtime, self.graph(), half)
            gap = max(self._gap(made, self.example(), batch), self._gap(made, inputs, batch))
        except Exception as error:  # noqa: BLE001 - the exporter's and the runtime's own
            return f"it cannot run there ({foreign.in_words(error.__cause__ or error)})"
        if gap <= allowed:
            return made
        return f"its answers differ by {gap:.2g} of their range, and {allowed:g} is allowed"

    def _gap(self, made: RuntimeForward, inputs: Sequence[Tensor], batch: int) -> float:
        """Largest difference from the network in torch, in float32."""
        with calling(), torch.inference_mode():
            wanted = self.plain.network(*inputs)
        return difference(wanted, made(inputs, batch))

    def relative(self, made: Forward | RuntimeForward, inputs: Sequence[Tensor], batch: int) -> float:
        """Time as a part of plain torch's, in turns: CPU time of this thread where it does the work alone."""
        clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
        ratios = []
        self.plain(inputs, batch), made(inputs, batch)  # the first call of a shape takes longer
        for _ in range(ROUNDS):
            start = clock()
            self.plain(inputs, batch)
            middle = clock()
            made(inputs, batch)
            ratios.append((clock() - middle) / max(middle - start, 1e-9))
        return statistics.median(ratios)

    def relative_in_crowd(
        self, one: Forward | RuntimeForward, other: Forward | RuntimeForward, inputs: Sequence[Tensor], lanes: int
    ) -> float:
        """Wall time of one form as a part of another's, in turns, while `lanes` threads call the same form at once.

        Threads share caches, memory and units of arithmetic: what is fastest alone need not be so among others.
        """
        together, count, threads = threading.Barrier(lanes), len(inputs[0]), torch.get_num_threads()

        def call(form: Forward | RuntimeForward) -> float:
            together.wait()
            start = time.perf_counter()
            form(inputs, count)
            return time.perf_counter() - start

        with ThreadPoolExecutor(lanes, initializer=torch.set_num_threads, initargs=(threads,)) as pool:

            def taken(form: Forward | RuntimeForward) -> float:
                return sum(pool.map(call, [form] * lanes))

            taken(one), taken(other)  # each thread makes its session
            return statistics.median(taken(one) / max(taken(other), 1e-9) for _ in range(ROUNDS))
