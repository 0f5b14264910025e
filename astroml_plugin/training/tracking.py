"""Trainings told to MLflow, TensorBoard or Weights & Biases, by name: nothing of it is needed.

Settings, figures of epochs and metrics are told. Places are told by their last name, and all texts without secrets.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError

Record = Mapping[str, Any]


class Tracker(Protocol):
    """Hears of one run."""

    def settings(self, values: Mapping[str, str | float]) -> None:
        """Settings of the run, by dotted names."""

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers at a step."""

    def close(self) -> None:
        """The run has ended."""


class Tracking:
    """Tells several trackers of a training; use it as a context.

    Args:
        names: of the trackers, of `TRACKERS`.
        url: folder or URL of what is made; its last name is that of the run.
        settings: plain values, nested.

    Raises:
        InputError: no such tracker, or its package is not installed.
    """

    def __init__(self, names: Sequence[str], url: str, settings: Mapping[str, Any]) -> None:
        check_names(names)
        self._trackers: list[Tracker] = []
        self._told: set[int] = set()
        name = storage.redact(url).rstrip("/").rpartition("/")[2] or "run"
        try:
            for one in dict.fromkeys(names):
                self._trackers.append(TRACKERS[one](name, url))
            for tracker in self._trackers:
                tracker.settings(dict(flat(settings)))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def epochs(self, records: Sequence[Record]) -> None:
        """Tell of the epochs that were not told of before."""
        for record in records:
            if (step := int(record["epoch"])) not in self._told:
                self._told.add(step)
                self.figures(step, record)

    def figures(self, step: int, record: Record) -> None:
        """Tell numbers at a step; what is none is left out."""
        values = {name: value for name, value in flat(record) if isinstance(value, float) and name != "epoch"}
        for tracker in self._trackers:
            tracker.figures(step, values)

    def following(
        self, read: Callable[[], Sequence[Record]], progress: Callable[..., None] | None
    ) -> Callable[..., None] | None:
        """A `progress` that also tells of new epochs; the one that is given where nothing is tracked.

        Args:
            read: gives the records of all epochs so far.
            progress: of the caller.
        """
        if not self._trackers:
            return progress

        def tell(*given: Any, **named: Any) -> None:
            self.epochs(read())
            if progress is not None:
                progress(*given, **named)

        return tell

    def close(self) -> None:
        """End the runs."""
        while self._trackers:
            self._trackers.pop().close()


def check_names(names: Sequence[str]) -> None:
    """InputError for a tracker that is not known."""
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"{name!r} tracks nothing here: --track takes {', '.join(TRACKERS)}")


def flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str | float]]:
    """Dotted name -> number, or text without secrets, of nested plain values; numbers must be finite."""
    for key, value in values.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            if math.isfinite(value):
                yield name, float(value)
        elif value is not None and value != "":
            yield name, storage.redact(str(value))[:250]


def _module(name: str, extra: str) -> Any:
    """An optional package."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"--track {extra} needs the package {name.partition('.')[0]}, which cannot be imported ({error}): "
            f"pip install 'astroml-plugin[{extra}]', or leave --track away"
        ) from error


class TensorBoard:
    """Event files in the folder `tensorboard` of the run, or here where the run is on an object store."""

    def __init__(self, name: str, url: str) -> None:
        module = _module("tensorboardX", "tensorboard")
        place = storage.join(url, "tensorboard") if storage.is_local(url) else os.path.join("tensorboard", name)
        self._writer = module.SummaryWriter(logdir=str(storage.local_path(place)), write_to_disk=True)

    def settings(self, values: Mapping[str, str | float]) -> None:
        """A table on the page "text"."""
        rows = "\n".join(f"| {name} | {value} |" for name, value in values.items())
        self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}")

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """One curve for each number."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class MLflow:
    """A run of the experiment `astroml`, or MLFLOW_EXPERIMENT_NAME, where MLFLOW_TRACKING_URI says; default: here."""

    def __init__(self, name: str, url: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self._mlflow = _module("mlflow", "mlflow")
        if "MLFLOW_EXPERIMENT_NAME" not in os.environ and "MLFLOW_EXPERIMENT_ID" not in os.environ:
            self._mlflow.set_experiment("astroml")
        self._mlflow.start_run(run_name=name, nested=self._mlflow.active_run() is not None)

    def settings(self, values: Mapping[str, str | float]) -> None:
        """Parameters of the run."""
        named = [(name, str(value)) for name, value in values.items()]
        for start in range(0, len(named), 100):
            self._mlflow.log_params(dict(named[start : start + 100]))

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics of the run."""
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()


class WeightsAndBiases:
    """A run of the project `astroml`, or WANDB_PROJECT; it stays on this machine unless WANDB_MODE says "online"."""

    def __init__(self, name: str, url: str) -> None:
        module = _module("wandb", "wandb")
        quiet = {"console": "off", "save_code": False, "disable_git": True, "x_disable_meta": True, "silent": True}
        self._run = module.init(
            project=os.environ.get("WANDB_PROJECT", "astroml"),
            name=name,
            mode=os.environ.get("WANDB_MODE", "offline"),
            reinit="create_new",
            settings=module.Settings(**quiet),
        )

    def settings(self, values: Mapping[str, str | float]) -> None:
        """Configuration of the run."""
        self._run.config.update(dict(values))

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of the history."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        with contextlib.suppress(KeyboardInterrupt):
            self._run.finish()


TRACKERS: dict[str, Callable[[str, str], Tracker]] = {
    "mlflow": MLflow,
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}
"""Name -> what tells of a run: called with the name of the run, and the folder or URL of what is made."""
