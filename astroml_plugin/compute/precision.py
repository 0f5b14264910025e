"""Half precision: where a device computes in it. Needs torch only."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch

HALF_PAYS = 0.8
"""Part of float32's time that half precision may take on a CPU, or it is not used: many networks are no faster."""


def half_type(device: torch.device) -> torch.dtype | None:
    """Type that `auto` casts to: bfloat16 on CPUs and GPUs that have it, float16 on older GPUs; else None, float32."""
    if device.type == "cpu":
        return torch.bfloat16 if cpu_has_bfloat16() else None
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


@lru_cache(maxsize=1)
def cpu_has_bfloat16() -> bool:
    """Whether this host's CPU multiplies in bfloat16: AVX-512 BF16, or AMX. False where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16"} & set(text.partition("flags")[2].partition("\n")[0].split()))
