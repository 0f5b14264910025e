"""Processes of a group on CPUs that believe they are on GPUs: gloo underneath, nccl's rules on top."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from astroml_plugin.training import distributed


class Gpus:
    """What torch says about the GPUs of this process, and what nccl would refuse."""

    def __init__(self, count: int) -> None:
        self.current, self.own = 0, ""
        self._start, self._make = torch.distributed.init_process_group, torch.tensor
        torch.cuda.device_count = lambda: count  # type: ignore[assignment]
        torch.cuda.set_device = self._choose  # type: ignore[assignment]
        torch.distributed.init_process_group = self._join
        torch.tensor = self._tensor

    def _choose(self, device: Any) -> None:
        self.current = torch.device(device).index or 0

    def _join(self, backend: str, *, device_id: Any = None, **given: Any) -> None:
        self._start(backend={"nccl": "gloo"}[backend], **given)
        self.own = str(device_id)
        there: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(there, (str(device_id), f"cuda:{self.current}"))
        if len({*there}) != len(there) or any(named != meant for named, meant in there):
            raise RuntimeError(f"ncclInvalidUsage: Duplicate GPU detected: {there}")

    def _tensor(self, data: Any, *, device: Any = None, **given: Any) -> torch.Tensor:
        place = torch.device("cpu" if device is None else device)
        index = self.current if place.index is None else place.index
        if place.type == "cuda" and f"cuda:{index}" != self.own:
            raise RuntimeError(f"ncclInvalidUsage: a tensor on cuda:{index} in the process of {self.own}")
        return self._make(data, **given)


def exchange(count: int, folder: str) -> None:
    """One process of a group on `count` GPUs: says where it is and what it was told."""
    Gpus(count)
    with distributed.joined_group("cuda") as group:
        told = group.broadcast_flag(group.first)
        Path(folder, str(group.rank)).write_text(f"{group.device} {told}")
