"""hyrax's verb `infer` over a memory-mapped array of stamps; its results go to its Lance table."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inside.serving import Pass, serve
from benchmarks.inside.vision import import_torchvision


def imports() -> None:
    """hyrax, torch and the user's classes."""
    import_torchvision()
    import benchmarks.inside.hyrax_classes  # noqa: F401


def prepare(told: dict[str, Any]) -> Pass:
    """A pass of `infer`.

    Args:
        told: `stamps` (.npy), `network` (traced module), `out` (folder), `batch`, `cores`, `workers` of its loader,
            `stretch` (whether stamps are normalised), `answers` (.npy file that gets the probabilities).
    """
    import hyrax
    import torch

    torch.set_num_threads(told["cores"])
    classes = "benchmarks.inside.hyrax_classes"
    out = Path(told["out"])
    shutil.rmtree(out, ignore_errors=True)
    asked = hyrax.Hyrax()
    settings: dict[str, Any] = {
        "general.results_dir": str(out),
        "general.log_level": "error",
        "model.name": f"{classes}.TracedNetwork",
        "infer.model_weights_file": told["network"],
        "data_loader.batch_size": told["batch"],
        "data_loader.num_workers": told["workers"],
        "data_request": {
            "infer": {
                "data": {
                    "dataset_class": f"{classes}.{'Stretched' if told['stretch'] else 'Raw'}Stamps",
                    "data_location": told["stamps"],
                    "fields": ["image"],
                    "primary_id_field": "object_id",
                }
            }
        },
    }
    for name, value in settings.items():
        asked.set_config(name, value)

    def once() -> dict[str, Any]:
        started = time.perf_counter()
        results = asked.infer()
        seconds = time.perf_counter() - started
        _keep(results, told["answers"])
        shutil.rmtree(out, ignore_errors=True)
        return {"seconds": seconds}

    return once


def _keep(results: Any, file: str) -> None:
    """The probabilities in the order of the stamps."""
    ids = np.array([int(name) for name in results.ids()])
    values = np.array([row["data"] for row in results[np.arange(len(ids))]], np.float32)
    np.save(file, values.reshape(len(ids))[np.argsort(ids)])


if __name__ == "__main__":
    serve(imports, prepare)
