"""Several processes that train one network together, by torch's own DistributedDataParallel: GPUs, nodes or CPUs.

Started by `torchrun` (which sets RANK, WORLD_SIZE and the address of the first process) or by `spawn` on one machine.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.spawn import ProcessRaisedException
from torch.multiprocessing.spawn import spawn as start_processes

from astroml_plugin.core import errors

_STORE = "ASTROML_GROUP_STORE"
"""Environment variable of spawned processes: the file through which they find one another."""

_LOOPBACK = "lo"


@dataclass(frozen=True)
class Group:
    """One process's view of those that train together."""

    rank: int = 0
    """Number of this process."""
    size: int = 1
    """How many there are."""
    device: str = "cpu"
    """Torch device of this process: its own GPU where several train on GPUs."""

    @property
    def first(self) -> bool:
        """Whether this process keeps records, checkpoints and bundle."""
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network, its gradients averaged over all processes."""
        return network if self.size == 1 else nn.parallel.DistributedDataParallel(network)

    def uneven(self, wrapped: nn.Module) -> Any:
        """A context in which processes may have different numbers of batches."""
        return wrapped.join() if isinstance(wrapped, nn.parallel.DistributedDataParallel) else nullcontext()

    def broadcast_flag(self, answer: bool) -> bool:
        """The first process's answer, in all; also waits for all."""
        if self.size == 1:
            return answer
        told = torch.tensor([int(answer)], device=self.device)
        torch.distributed.broadcast(told, 0)
        return bool(told.item())

    def share(self, rows: Any) -> Any:
        """This process's share of numbered objects."""
        return rows[self.rank :: self.size]


ALONE = Group()
"""One process."""


def is_first() -> bool:
    """Whether this is the process that keeps the bundle, also before or after the group is joined."""
    return int(os.environ.get("WORLD_SIZE", "1")) == 1 or os.environ.get("RANK", "0") == "0"


@contextmanager
def joined_group(device: str) -> Iterator[Group]:
    """The group that the environment names (`torchrun`, `spawn`), left at the end; `ALONE` without one.

    Args:
        device: "cuda…" talks through nccl, each process on a GPU of its own; anything else through gloo.

    Raises:
        InputError: more processes of this machine than it has GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield replace(ALONE, device=device)
        return
    given: dict[str, Any] = {"backend": "gloo"}
    if device.startswith("cuda"):
        device = _own_gpu(size)
        torch.cuda.set_device(device)  # what says "cuda" in this process means this one
        given = {"backend": "nccl", "device_id": torch.device(device)}
    if (store := os.environ.get(_STORE)) is not None:
        given |= {"init_method": f"file://{store}", "rank": int(os.environ["RANK"]), "world_size": size}
    torch.distributed.init_process_group(**given)
    try:
        yield Group(torch.distributed.get_rank(), size, device)
    finally:
        torch.distributed.destroy_process_group()


def _own_gpu(size: int) -> str:
    """This process's GPU: nccl refuses two processes on one, or waits for its time-out."""
    here, count = int(os.environ.get("LOCAL_WORLD_SIZE", size)), torch.cuda.device_count()
    if here > count:
        raise errors.InputError(
            f"{here} processes cannot train on {count} GPU{'' if count == 1 else 's'}, each needs one of its own: "
            f"give --processes {count}, or --device cpu"
        )
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0'))}"


def spawn(processes: int, work: Callable[..., Any], *arguments: Any, watch: Callable[[], None] | None = None) -> None:
    """Run `work(*arguments)` in that many processes of this machine; each finds its place by `joined_group`.

    They find one another through a file that only this user can read. torch's own store would be a server that listens
    on every interface and believes whoever connects. What they exchange goes over the loopback interface.

    Args:
        processes: how many.
        work: importable function.
        arguments: picklable.
        watch: called here about every second; an exception in it ends all processes.

    Raises:
        AstromlError: what the first that failed raised; the others were stopped.
    """
    with tempfile.TemporaryDirectory(prefix="astroml-") as folder:  # mode 0700
        context = start_processes(_place, (processes, f"{folder}/store", work, arguments), processes, join=False)
        try:
            while not context.join(timeout=1.0):
                if watch is not None:
                    _watched(watch, context.processes)
        except ProcessRaisedException as error:
            kind, _, sentence = str(error).strip().splitlines()[-1].partition(": ")
            ours = getattr(errors, kind.rpartition(".")[2], None)
            if not kind.startswith("astroml_plugin.core.errors.") or ours is None:
                raise
            raise ours(sentence) from None


def _watched(watch: Callable[[], None], processes: Sequence[Any]) -> None:
    """Call `watch`; where it ends this thread, the processes end too."""
    try:
        watch()
    except BaseException:
        for process in processes:
            process.kill()
            process.join()
        raise


def _place(rank: int, processes: int, store: str, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """One spawned process."""
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), _STORE: store})
    os.environ["LOCAL_WORLD_SIZE"] = str(processes)
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, _LOOPBACK)
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    work(*arguments)
