"""Shared by the verbs: exit statuses, and what is said at the end."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import select
import sys
from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from itertools import islice
from typing import Any

DONE, UNEXPECTED, WRONG_INPUT, SOME_FAILED, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143

_MOST = 1000
"""Entries of a list, or of a table by name, in JSON."""
_SHORT = ("float16", "float32")
"""Types whose numbers have fewer digits than Python's."""
_LONGEST, _END = 1000, 300
"""Characters of a sentence, and of its end where the middle is left out."""


def finish(options: argparse.Namespace, result: Any, line: str, status: int = DONE) -> int:
    """The last line: what, where, how fast; as JSON on request."""
    from astroml_plugin.core.redaction import redact

    if options.json:
        from astroml_plugin.core.storage import finite

        plain = asdict(result) if is_dataclass(result) else result  # type: ignore[arg-type]
        print(json.dumps(bounded(_without_secrets(finite(json.loads(json.dumps(plain, default=_plain)))))))
    else:
        print(redact(line))
        _say_next(options, result)
    return status


def _say_next(options: argparse.Namespace, result: Any) -> None:
    """Name the next commands on stderr, where there are some."""
    from astroml_plugin.core.errors import AstromlError
    from astroml_plugin.core.redaction import redact
    from workflows.verbs.after import what_next

    with contextlib.suppress(AttributeError, KeyError, TypeError, AstromlError, OSError):
        for command in what_next(options, result):
            sys.stdout.flush()
            print(f"next: {redact(command)}", file=sys.stderr)


def bounded(value: Any) -> Any:
    """Plain values whose lists and tables end after `_MOST` entries; NAME_count beside NAME says how many there are."""
    if isinstance(value, list):  # without a name: a note stands in the place of the rest
        rest = [f"… {len(value) - _MOST:,} more"] if len(value) > _MOST else []
        return [bounded(item) for item in value[:_MOST]] + rest
    if not isinstance(value, dict):
        return value
    kept: dict[str, Any] = {}
    for name, item in islice(value.items(), _MOST):
        long = isinstance(item, list | dict) and len(item) > _MOST
        kept[name] = bounded(item[:_MOST] if long and isinstance(item, list) else item)
        if long:
            kept[f"{name}_count"] = len(item)
    return kept


def _plain(value: Any) -> Any:
    """A NumPy number as Python's, with no more digits than it has; anything else as text."""
    if not hasattr(value, "dtype") or value.ndim:
        return str(value)
    return float(str(value)) if str(value.dtype) in _SHORT else value.item()


def _without_secrets(value: Any) -> Any:
    """Plain values whose texts are redacted."""
    from astroml_plugin.core.redaction import redact

    if isinstance(value, dict):
        return {name: _without_secrets(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(item) for item in value]
    return redact(value) if isinstance(value, str) else value


def complain(sentence: str, status: int) -> int:
    """Print one sentence on stderr and give the exit status back."""
    from astroml_plugin.core.storage import redact

    line = redact(" ".join(sentence.split())).encode("utf-8", "replace").decode()
    if len(line) > _LONGEST:  # names and values of others: the beginning says what is wrong, the end what to do
        line = f"{line[: _LONGEST - _END]} … {line[-_END:]}"
    print(f"astroml-plugin: {line}", file=sys.stderr)
    return status


def complain_of(failed: Iterable[tuple[str, str]]) -> None:
    """Say of units (name, reason) that they failed: each reason once, with the first unit and the number of others."""
    from astroml_plugin.core.description import and_more

    units: dict[str, list[str]] = {}
    for unit, reason in failed:
        units.setdefault(reason, []).append(unit)
    for reason, names in units.items():
        complain(f"{and_more(names)} failed: {reason}", SOME_FAILED)


def silence(library: str) -> None:
    """Silence Dask's or Ray's own log, unless someone asks for it: our outcomes say the same in one sentence."""
    if not os.environ.get("ASTROML_DEBUG"):
        for name in (library, f"{library}.client", "tornado.application", "asyncio"):  # levels of their own
            logging.getLogger(name).setLevel(logging.CRITICAL)


def reader_has_gone() -> bool:
    """Whether nobody reads our output any more, as behind `| head`: then the rest of it goes nowhere."""
    with contextlib.suppress(OSError, ValueError):  # stdout is no file of the system, and nobody can leave
        place = sys.stdout.fileno()
        watch = select.poll()
        watch.register(place, 0)
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0)):
            os.dup2(os.open(os.devnull, os.O_WRONLY), place)
            return True
    with contextlib.suppress(ValueError):
        sys.stdout.flush()
    return False
