"""torchvision beside a torch of another build."""

from __future__ import annotations

import re
from typing import Any

_DECLARED: list[Any] = []


def import_torchvision() -> None:
    """Import it also where its native operators do not fit torch (a build for GPUs beside one for CPUs).

    The peers import torchvision and call none of these operators. Those that its import asks for are declared here,
    without code.
    """
    import torch

    for _ in range(20):
        try:
            import torchvision  # noqa: F401
        except RuntimeError as error:
            missing = re.search(r"torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            _DECLARED.append(torch.library.Library("torchvision", "FRAGMENT"))
            _DECLARED[-1].define(f"{missing[1]}(Tensor boxes) -> Tensor")
        else:
            return
