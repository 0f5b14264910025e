"""Readers of the words that people type, and the options that several verbs add to their own."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tomllib
from collections.abc import Callable
from typing import Any


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


def _numbers(kind: type[int | float], count: int | None = None) -> Callable[[str], tuple[int | float, ...]]:
    """Reader of numbers between commas."""
    example = ",".join(("100", "200", "400")[:count])

    def read(text: str) -> tuple[int | float, ...]:
        with contextlib.suppress(ValueError):
            values = tuple(kind(value) for value in names(text))
            if count in (None, len(values)):
                return values
        whole = "whole " if kind is int else ""
        raise argparse.ArgumentTypeError(f"{text!r} must be {whole}numbers such as {example}")

    return read


def pairs(text: str) -> dict[str, str]:
    """Name -> text, from `A=x,B=y`."""
    parts = [part.partition("=") for part in names(text)]
    if not parts or not all(name and value for name, _, value in parts):
        raise argparse.ArgumentTypeError(f"{text!r} must read NAME=TEXT,…, for example images=x,label=y")
    return {name.strip(): value.strip() for name, _, value in parts}


def fractions(text: str) -> dict[str, float]:
    """Class -> fraction, from `A=0.9,B=0.1`."""
    try:
        return {name: float(value) for name, value in pairs(text).items()}
    except (ValueError, argparse.ArgumentTypeError):
        sentence = f"{text!r} is no prior: write CLASS=FRACTION,…, for example lens=0.001"
        raise argparse.ArgumentTypeError(sentence) from None


def toml(path: str) -> dict[str, Any]:
    """Tables of a TOML file, by path or URL."""
    try:
        if "://" not in path:
            with open(path, "rb") as file:
                return tomllib.load(file)
        from astroml_plugin.core.storage import read_bytes

        return tomllib.loads(read_bytes(path).decode())
    except Exception as error:  # clients of stores have errors of their own
        raise argparse.ArgumentTypeError(f"{_shown(path)} cannot be read as TOML: {_shown(str(error))}") from error


def _shown(text: str) -> str:
    from astroml_plugin.core.redaction import redact

    return redact(" ".join(text.split()))


def shard(text: str) -> tuple[int, int]:
    """Index and count of `I/N`, or of `auto`: then a line on stderr says which."""
    if text == "auto":
        return _array_shard()
    first, _, second = text.partition("/")
    if not (first.isdigit() and second.isdigit() and int(second) > 0 and int(first) <= int(second)):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard: write I/N, for example 0/4 ... 3/4, or auto")
    return int(first), int(second)


def _array_shard() -> tuple[int, int]:
    from astroml_plugin.compute.array_jobs import array_shard
    from astroml_plugin.core.errors import InputError

    try:
        index, count = array_shard()
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    print(f"shard {index}/{count} of an array job", file=sys.stderr)
    return index, count


def add_run_options(verb: argparse.ArgumentParser) -> None:
    """Add the options that tasks declare; together they are one list of pairs, `options`."""
    for flag, read, metavar, text in (
        (
            "--prior",
            lambda text: ("prior", fractions(text)),
            "CLASS=F,…",
            "class fractions of the survey, as lens=0.001",
        ),
        ("--symmetries", lambda text: ("symmetries", int(text)), "N", "average class probabilities over 1, 2, 4 or 8"),
        (
            "--option",
            assignment,
            "NAME=VALUE",
            "a run option of the bundles' tasks, or BUNDLE.NAME=VALUE of one bundle; VALUE as in TOML; repeatable",
        ),
    ):
        verb.add_argument(flag, dest="options", action="append", type=read, metavar=metavar, help=text)


def assignment(text: str) -> tuple[str, Any]:
    """NAME=VALUE: numbers, true, false, lists and tables as in TOML, anything else a text."""
    name, equals, value = (part.strip() for part in text.partition("="))
    if not name or not equals or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is no option: write NAME=VALUE, for example symmetries=8")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


def assignments(text: str) -> dict[str, Any]:
    """NAME=VALUE,NAME=VALUE: see `assignment`."""
    return dict(assignment(part) for part in text.split(","))


READERS = (
    ("tuple[str, ...]", names, "A,B,…"),
    ("Sequence[str]", names, "A,B,…"),
    ("Collection[str]", names, "A,B,…"),
    ("Sequence[int]", _numbers(int), "N,M,…"),
    ("tuple[int, ...]", _numbers(int), "N,M,…"),
    ("tuple[int, int]", _numbers(int, 2), "N,M"),
    ("tuple[float, ...]", _numbers(float), "X,Y,…"),
    ("Sequence[float]", _numbers(float), "X,Y,…"),
    ("tuple[float, float]", _numbers(float, 2), "LOW,HIGH"),
    ("Mapping[str, float]", fractions, "NAME=F,…"),
    ("Mapping[str, str | float]", assignments, "NAME=VALUE,…"),
    ("dict[str, str]", pairs, "NAME=TEXT,…"),
    ("dict[str, Any]", toml, "TOML"),
    ("int", int, "N"),
    ("float", float, "X"),
    ("Arcsec", float, "ARCSEC"),
)
"""Type as it is written, reader of its text, and how help shows a value; a type that is not here is a text."""
