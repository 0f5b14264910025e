"""Shared by the verbs: exit statuses, reading of options, the last line."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, is_dataclass
from typing import Any

DONE, UNEXPECTED, WRONG_INPUT, SOME_FAILED, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143

Verb = tuple[Callable[[argparse.Namespace], int], str, str, Callable[[argparse.ArgumentParser], None]]
"""Function that runs a verb, one sentence, an example, and the function that adds its options."""


def chosen(options: argparse.Namespace, *names: str, **renamed: str) -> dict[str, Any]:
    """The options a person gave, by name; the others keep the workflow's defaults."""
    pairs = {**{name: name for name in names}, **renamed}
    values = {target: getattr(options, name, None) for name, target in pairs.items()}
    return {name: value for name, value in values.items() if value is not None}


def finish(options: argparse.Namespace, result: Any, line: str, status: int = DONE) -> int:
    """The last line: what, where, how fast; as JSON on request."""
    if options.json:
        print(json.dumps(asdict(result) if is_dataclass(result) else result, default=str))  # type: ignore[arg-type]
    else:
        print(line)
    return status


def complain(sentence: str, status: int) -> int:
    """Print one sentence on stderr and give the exit status back."""
    from astroml_plugin.core.storage import redact

    print(f"astroml-plugin: {redact(' '.join(sentence.split()))}", file=sys.stderr)
    return status


@contextlib.contextmanager
def joined(options: argparse.Namespace) -> Iterator[Any]:
    """Client of the cluster that the options name; threads of this process where they name none."""
    from astroml_plugin.compute.cluster import connect

    with connect(options.scheduler or "local", workers=options.workers, threads=options.threads) as client:
        yield client


@contextlib.contextmanager
def quiet(library: str = "distributed") -> Iterator[None]:
    """Dask's or Ray's own log only where someone asks for it: our outcomes say the same in one sentence."""
    import logging

    if not os.environ.get("ASTROML_DEBUG"):
        for name in (library, f"{library}.client", "tornado.application", "asyncio"):  # levels of their own
            logging.getLogger(name).setLevel(logging.CRITICAL)
    yield


def batch(text: str) -> int | None:
    """Batch size, or None for `auto`."""
    return None if text == "auto" else int(text)


def gigabytes(text: str) -> int:
    """Bytes from a number in GB."""
    try:
        return int(float(text) * 1e9)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of gigabytes such as 8 or 0.5") from None


def names(text: str) -> tuple[str, ...]:
    """Names between commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def floats(text: str) -> tuple[float, ...]:
    """Numbers between commas."""
    try:
        return tuple(float(value) for value in names(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number or list of numbers such as 30,30.5") from None


def counts(text: str) -> tuple[int, ...]:
    """Whole numbers between commas."""
    values = floats(text)
    if any(value != int(value) for value in values):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers such as 100,200,400")
    return tuple(int(value) for value in values)


def pair(text: str) -> tuple[float, float]:
    """Lower and upper number of `LOW,HIGH`."""
    values = floats(text)
    if len(values) != 2:
        raise argparse.ArgumentTypeError(f"{text!r} is no range: write LOW,HIGH, for example 10,200")
    return values[0], values[1]


def fractions(text: str) -> dict[str, float]:
    """Class -> fraction, from `A=0.9,B=0.1`."""
    pairs = [part.partition("=") for part in names(text)]
    try:
        found = {name.strip(): float(value) for name, _, value in pairs}
    except ValueError:
        found = {}
    if not found or len(found) < len(pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is no prior: write CLASS=FRACTION,…, for example lens=0.001")
    return found


def toml(path: str) -> dict[str, Any]:
    """Tables of a TOML file."""
    import tomllib

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be read as TOML: {error}") from error


def shard(text: str) -> tuple[int, int]:
    """Index and count of `I/N`."""
    first, _, second = text.partition("/")
    if not (first.isdigit() and second.isdigit() and int(second) > 0 and int(first) <= int(second)):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard: write I/N, for example 0/4 ... 3/4")
    return int(first), int(second)


def add_cluster(verb: argparse.ArgumentParser) -> None:
    """Add the options that say where the work runs."""
    verb.add_argument("--scheduler", metavar="WHERE", help="local (default), processes, cuda, slurm or an address")
    verb.add_argument("--workers", type=int, metavar="N", help="worker processes of a cluster started here")
    verb.add_argument("--threads", type=int, metavar="N", help="compute threads per worker")


def add_run_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of a run that tasks declare."""
    verb.add_argument(
        "--prior", type=fractions, metavar="CLASS=F,…", help="class fractions of the survey, as lens=0.001"
    )
    verb.add_argument("--symmetries", type=int, choices=[1, 2, 4, 8], help="average class probabilities over so many")
    verb.add_argument(
        "--option",
        dest="run_options",
        type=assignment,
        action="append",
        metavar="NAME=VALUE",
        help="a run option of the bundles' tasks, or BUNDLE.NAME=VALUE of one bundle; VALUE as in TOML; repeatable",
    )


def run_options(options: argparse.Namespace) -> dict[str, Any]:
    """Run options that a person gave, NAME or BUNDLE.NAME -> value."""
    return chosen(options, "prior", "symmetries") | dict(options.run_options or ())


def assignment(text: str) -> tuple[str, Any]:
    """NAME=VALUE: numbers, true, false, lists and tables as in TOML, anything else a text."""
    import tomllib

    name, equals, value = (part.strip() for part in text.partition("="))
    if not name or not equals or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is no option: write NAME=VALUE, for example symmetries=8")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value
