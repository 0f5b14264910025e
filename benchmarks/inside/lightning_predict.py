"""The predict loop of zoobot: Lightning's trainer over a torch data loader, answers to one table at the end."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np

from benchmarks.inside.serving import Pass, serve
from benchmarks.inside.vision import import_torchvision


def imports() -> None:
    """zoobot, with the Lightning and torch that it brings."""
    import_torchvision()
    import lightning  # noqa: F401
    import torch  # noqa: F401
    from zoobot.pytorch.predictions import predict_on_catalog  # noqa: F401


def prepare(told: dict[str, Any]) -> Pass:
    """A pass of `Trainer.predict`.

    Args:
        told: as for `hyrax_infer`; `out` is a folder that gets predictions.csv.
    """
    from pathlib import Path

    import lightning
    import pandas as pd
    import torch

    from benchmarks.inside.lightning_classes import TracedNetwork
    from benchmarks.inside.mapped_stamps import MappedStamps

    torch.set_num_threads(told["cores"])
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    Path(told["out"]).mkdir(parents=True, exist_ok=True)
    network = TracedNetwork(told["network"])
    loader = torch.utils.data.DataLoader(
        MappedStamps(told["stamps"], told["stretch"]),
        batch_size=told["batch"],
        num_workers=told["workers"],
        multiprocessing_context="spawn" if told["workers"] else None,
        persistent_workers=bool(told["workers"]),
    )
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(accelerator="cpu", devices=1, max_epochs=-1, inference_mode=True, **quiet)

    def once() -> dict[str, Any]:
        started = time.perf_counter()
        found = torch.concat(trainer.predict(network, loader)).numpy()
        frame = pd.DataFrame({"id_str": np.arange(len(found)).astype(str), "p_star": found})
        frame.to_csv(Path(told["out"]) / "predictions.csv", index=False)
        seconds = time.perf_counter() - started
        np.save(told["answers"], found)
        return {"seconds": seconds}

    return once


if __name__ == "__main__":
    serve(imports, prepare)
