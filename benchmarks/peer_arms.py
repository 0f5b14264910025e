"""Arms of peers in environments of their own, and the files that they read: an array of stamps, a traced network."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from torch import nn

from astroml_plugin.compute.cluster import cores
from astroml_plugin.training.bundle import ModelBundle
from benchmarks.environments import Peer, PeerMissingError
from benchmarks.harness import scratch

Arm = Callable[[], tuple[float, np.ndarray]]
"""Seconds of one pass and the probabilities in order of the objects."""

PROGRAMS: dict[str, tuple[str, str, bool]] = {
    "hyrax": ("hyrax", "hyrax_infer", True),
    "hyrax, raw": ("hyrax", "hyrax_infer", False),
    "zoobot": ("zoobot", "lightning_predict", True),
}
"""Arm -> environment, program of `benchmarks.inside`, whether it normalises."""


class _Probability(nn.Module):
    """The network, and the probability of its first class."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.network(image), 1)[:, 0]


def traced(bundle: str, shape: tuple[int, int, int], batch: int) -> str:
    """File of a bundle's network as a traced module from images (n, band, y, x) to (n,) probabilities of a class."""
    file = Path(f"{bundle}-traced.pt")  # beside the bundle, which refuses such files
    image = torch.randn(batch, *shape).contiguous(memory_format=torch.channels_last)
    network = ModelBundle.load(bundle).network(fused=True).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        torch.jit.save(torch.jit.trace(_Probability(network), image, check_trace=False), str(file))
    return str(file)


def mapped(store: str) -> str:
    """The stamps of a store as one .npy file, made once: not compressed, to be memory-mapped."""
    file = Path(store).with_suffix(".npy")
    if not file.exists():
        array = zarr.open_array(f"{store}/image", mode="r")
        part = file.with_suffix(".part.npy")
        copy = np.lib.format.open_memmap(part, mode="w+", dtype=array.dtype, shape=array.shape)
        for start in range(0, array.shape[0], array.chunks[0]):
            copy[start : start + array.chunks[0]] = array[start : start + array.chunks[0]]
        copy.flush()
        part.rename(file)
    return str(file)


def peer_arms(
    stack: ExitStack, store: str, bundle: str, batch: int
) -> tuple[dict[str, Arm], dict[str, dict[str, float]], list[str]]:
    """One arm for each of PROGRAMS that can be installed; their processes end with `stack`.

    Args:
        stack: closes the processes.
        store: Stamps.
        bundle: a classifier of one image.
        batch: stamps per forward.

    Returns:
        Arms; seconds of import and load of each; a sentence for each that is missing.
    """
    stamps = mapped(store)
    shape = tuple(np.load(stamps, mmap_mode="r").shape[1:])
    network = traced(bundle, (shape[0], shape[1], shape[2]), batch)
    arms: dict[str, Arm] = {}
    ready: dict[str, dict[str, float]] = {}
    missing: list[str] = []
    for arm, (environment, program, stretch) in PROGRAMS.items():
        folder = scratch() / f"peers-{environment}-{program}-{stretch}"
        shutil.rmtree(folder, ignore_errors=True)
        told: dict[str, Any] = {"stamps": stamps, "network": network, "out": str(folder), "batch": batch}
        told |= {"cores": cores(), "workers": cores(), "stretch": stretch, "answers": f"{folder}.npy"}
        try:
            peer = stack.enter_context(Peer(environment, program, told, cores()))
            call = _arm(peer, f"{folder}.npy")
            call()
        except PeerMissingError as error:
            missing.append(f"{arm}: {error}.")
            continue
        arms[arm], ready[arm] = call, peer.ready
    return arms, ready, missing


def _arm(peer: Peer, answers: str) -> Arm:
    def arm() -> tuple[float, np.ndarray]:
        return float(peer()["seconds"]), np.load(answers)

    return arm
