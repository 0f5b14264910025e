"""Classes with a planted cause: a mark in a corner or over the stamp, or light in a band; networks that learned it."""

from __future__ import annotations

import numpy as np
import torch

from astroml_plugin.networks.strided_cnn import StridedCNN
from astroml_plugin.tasks.classification.task import ClassifyTask
from astroml_plugin.training.bundle import Card, ModelBundle
from tests.training_samples import SIZE, write_stamps

torch.set_num_threads(1)  # the networks are the same on every machine, and threads wait for none that others hold up

BANDS = ("g", "r", "i")
ARGUMENTS = {"widths": [8, 16], "hidden": 16, "pooling": "grid", "batch_norm": False}


def stamps(cause: str, count: int = 192, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, SIZE, SIZE) in units of the noise, and classes (n,): 1 for those with the cause.

    Args:
        cause: "corner": a small square of light at high x and low y; "band": the object is brighter in r;
            "watermark": stripes of light over the whole stamp.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    blob = np.exp(-0.5 * (x**2 + y**2) / 3.0**2)
    image = rng.normal(0, 1, (count, 3, SIZE, SIZE)) + rng.uniform(4, 8, (count, 1, 1, 1)) * blob
    kind = rng.integers(0, 2, count)
    if cause == "corner":
        image[kind == 1, :, 1:4, -4:-1] += 8.0
    elif cause == "watermark":
        image[kind == 1] += 4.0 * ((x + y) % 4 < 2)
    else:
        image[kind == 1, 1] += 8 * blob
    return image.astype(np.float32), kind


def bundle(url: str, cause: str, steps: int = 60) -> str:
    """A bundle that has learned which stamps have the cause; returns its URL."""
    torch.manual_seed(1)
    settings = {"classes": ["plain", "marked"], "positive": "marked", "bands": list(BANDS), "stamp_size": SIZE}
    normalisation = {"unit": "scale", "scales": [1.0, 1.0, 1.0], "background": "none"}
    task = ClassifyTask.from_settings({**settings, "normalisation": normalisation, "pixel_scale": 0.2})
    network = StridedCNN(3, 2, **ARGUMENTS)
    image, kind = (torch.from_numpy(item) for item in stamps(cause, seed=5))
    weights = list(network.parameters())
    first, second = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
    # Adam by hand: that of torch imports its compiler, which takes longer than all this
    for step in range(1, steps + 1):
        slopes = torch.autograd.grad(torch.nn.functional.cross_entropy(network(image), kind), weights)
        with torch.no_grad():
            for weight, slope, mean, square in zip(weights, slopes, first, second, strict=True):
                mean.lerp_(slope, 0.1)
                square.lerp_(slope**2, 0.01)
                weight -= 0.01 * mean / (1 - 0.9**step) / ((square / (1 - 0.99**step)).sqrt() + 1e-8)
    assert (network(image).argmax(1) == kind).float().mean() > 0.98, "the cause was not learned"
    card = Card(url.rstrip("/").rpartition("/")[2], "classify", task.to_settings(), "strided_cnn", ARGUMENTS)
    ModelBundle.save(url, network.eval(), card)
    return url


def store(url: str, cause: str, count: int = 48, block: int = 16) -> str:
    """Stamps of both classes, in blocks."""
    image, kind = stamps(cause, count, seed=9)
    return write_stamps(url, image, {"kind": kind}, bands=BANDS, block=block)
