"""Half precision: where a device computes in it, and how. Needs torch only."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

HALF_PAYS = 0.8
"""Part of float32's time that half precision may take on a CPU, or it is not used: many networks are no faster."""

FLOAT32 = "float32"
"""Name of the form in which answers of all devices and runtimes are equal to rounding."""

TORCH, COMPILED = "torch", "torch.compile"


@dataclass(frozen=True)
class HalfForm:
    """One way to calculate in half precision. Two of them differ by half of what each differs from float32."""

    device: str
    """Type of the torch device."""
    runtime: str
    """`TORCH`, `COMPILED`, or another runtime of a CPU."""
    number: str
    """bfloat16 or float16."""

    def __str__(self) -> str:
        return f"{self.runtime} {self.number} on {self.device}"

    @property
    def dtype(self) -> torch.dtype:
        """The number format as torch calls it."""
        found: torch.dtype = getattr(torch, self.number)
        return found

    def problem(self, device: torch.device) -> str:
        """Why a device of this process cannot give rows of this form, in words; empty where it can."""
        if device.type != self.device:
            return f"this is a {device.type} device"
        if (half := half_type(device)) != self.dtype:
            return f"this device has {str(half or 'no half precision').removeprefix('torch.')}"
        if self.runtime not in (TORCH, COMPILED) and importlib.util.find_spec(self.runtime) is None:
            return f"{self.runtime} is not installed here"
        return ""


def half_form(name: str) -> HalfForm | None:
    """The form of that name; None for `FLOAT32`."""
    if name == FLOAT32:
        return None
    runtime, number, _, device = name.split()
    return HalfForm(device, runtime, number)


def half_type(device: torch.device) -> torch.dtype | None:
    """Type that `auto` casts to: bfloat16 on CPUs and GPUs that have it, float16 on older GPUs; else None, float32."""
    if device.type == "cpu":
        return torch.bfloat16 if cpu_has_bfloat16() else None
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def half_kind(device: str) -> str:
    """Number format and type of a device that computes in half precision; empty of one that does not."""
    half = half_type(torch.device(device))
    return "" if half is None else f"{str(half).removeprefix('torch.')} {torch.device(device).type}"


@lru_cache(maxsize=1)
def cpu_has_bfloat16() -> bool:
    """Whether this host's CPU multiplies in bfloat16: AVX-512 BF16, or AMX. False where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16"} & set(text.partition("flags")[2].partition("\n")[0].split()))
