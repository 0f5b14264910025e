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
    """One way to calculate in half precision. Two of them differ by up to what each differs from float32."""

    device: str
    """Type of the torch device."""
    runtime: str
    """`TORCH`, `COMPILED`, or another runtime of a CPU."""
    number: str
    """bfloat16 or float16."""
    instructions: str = ""
    """How a CPU multiplies in it: `AMX` or `AVX512`; empty of other devices."""

    def __str__(self) -> str:
        by = f" with {self.instructions}" if self.instructions else ""
        return f"{self.runtime} {self.number} on {self.device}{by}"

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
        if self.instructions and (here := cpu_bfloat16()) != self.instructions:
            return f"this CPU multiplies in it with {here}"
        if self.runtime not in (TORCH, COMPILED) and importlib.util.find_spec(self.runtime) is None:
            return f"{self.runtime} is not installed here"
        return ""


def half_form(name: str) -> HalfForm | None:
    """The form of that name; None for `FLOAT32`."""
    if name == FLOAT32:
        return None
    runtime, number, _, device, *rest = name.split()
    return HalfForm(device, runtime, number, *rest[1:])


def half_form_of(device: torch.device, runtime: str) -> HalfForm | None:
    """The form of a runtime on a device of this process; None where the device has no half precision."""
    half = half_type(device)
    by = cpu_bfloat16() if device.type == "cpu" else ""
    return None if half is None else HalfForm(device.type, runtime, str(half).removeprefix("torch."), by)


def half_type(device: torch.device) -> torch.dtype | None:
    """Type that `auto` casts to: bfloat16 on CPUs and GPUs that have it, float16 on older GPUs; else None, float32."""
    if device.type == "cpu":
        return torch.bfloat16 if cpu_bfloat16() else None
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def half_kind(device: str) -> str:
    """Words that devices share whose half precision gives equal rows; empty for a device that has none."""
    form = half_form_of(torch.device(device), TORCH)
    return "" if form is None else str(form)


AMX, AVX512 = "amx", "avx512"
"""Instructions by which CPUs multiply in bfloat16."""


@lru_cache(maxsize=1)
def cpu_bfloat16() -> str:
    """The fastest instructions by which this host's CPU multiplies in bfloat16; empty: none, or nobody tells.

    Sums are rounded in another order by each, and what is rounded to bfloat16 after it differs then.
    """
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    flags = set(text.partition("flags")[2].partition("\n")[0].split())
    return AMX if "amx_bf16" in flags else AVX512 if "avx512_bf16" in flags else ""
