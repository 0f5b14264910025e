"""The command `astroml-plugin VERB`: a thin skin over the workflows. It imports only the verb it runs."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from astroml_plugin import __version__
from astroml_plugin.core.errors import AstromlError
from astroml_plugin.core.stopping import Terminated, raise_terminated, repeat_lost_signals
from workflows.verbs import catalogs, data, inference, models, shells
from workflows.verbs.arguments import Verb, add_arguments
from workflows.verbs.cone_words import joined_cones
from workflows.verbs.options import DONE, INTERRUPTED, TERMINATED, UNEXPECTED, WRONG_INPUT, complain, reader_has_gone

_DISK = {errno.ENOSPC: "no space is left on the disk", errno.EDQUOT: "the disk quota is used up"}

VERBS: dict[str, Verb] = {**data.VERBS, **models.VERBS, **inference.VERBS, **catalogs.VERBS, **shells.VERBS}


class _Parser(argparse.ArgumentParser):
    """Wrong arguments are one sentence and exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


class _VerbParser(_Parser):
    """Options of a verb, which are added when the verb is the one that was asked for."""

    specification: Verb

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if len(self._actions) == 1:  # --help alone
            by_file = any(word.startswith("--config") for word in args or ())
            add_arguments(self, self.specification, by_file=by_file)
            self.add_argument("--json", action="store_true", help="print the result as one line of JSON")
        return super().parse_known_args(args, namespace)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status of the contract."""
    # Threads of torch that spin at barriers starve each other where cores are shared; asked before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = _parsed(_parser(), arguments)
    with contextlib.suppress(ValueError):  # not in the main thread: signals stay the caller's
        signal.signal(signal.SIGTERM, raise_terminated)
    try:
        return int(options.run(options))
    except AstromlError as error:
        return complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return complain("stopped; what is finished is kept, run the same command to go on", INTERRUPTED)
    except Terminated:
        return complain("terminated; what is finished is kept, run the same command to go on", TERMINATED)
    except BrokenPipeError as error:
        return DONE if reader_has_gone() else complain(_os_sentence(error), WRONG_INPUT)
    except OSError as error:
        return complain(_os_sentence(error), WRONG_INPUT)
    except Exception as error:
        if os.environ.get("ASTROML_DEBUG"):
            raise
        if _is_remote_failure(error):
            return complain(
                f"the store cannot be reached or read: {error}; check URL, network and credentials", WRONG_INPUT
            )
        return complain(
            f"unexpected failure: {type(error).__name__}: {error} (ASTROML_DEBUG=1 shows the trace)", UNEXPECTED
        )


def _parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; the SQL of `query` may come after them too (argparse fills an optional argument only once)."""
    given = [_plain_number(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    options, left = parser.parse_known_args(joined_cones(given))
    if options.verb == "query" and options.sql is None and len(left) == 1 and not left[0].startswith("-"):
        options.sql = left.pop()
    if left:
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    return options


def _plain_number(word: str) -> str:
    """Negative numbers such as -1e-5 without their exponent: argparse takes them for options before Python 3.14."""
    if not word.startswith("-") or "e" not in word.lower():
        return word
    with contextlib.suppress(ValueError):
        return f"{float(word):.17f}"
    return word


def entry() -> NoReturn:
    """The console script: after trouble it leaves at once, without waiting for threads that still read, or hang."""
    repeat_lost_signals()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # terminals that know few letters
    status = main()
    reader_has_gone()
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    if status != DONE:
        os._exit(status)
    sys.exit(status)


def _is_remote_failure(error: Exception) -> bool:
    from astroml_plugin.core.storage import is_remote_failure

    return is_remote_failure(error)


def _os_sentence(error: OSError) -> str:
    place = f" ({error.filename})" if error.filename else ""
    if error.errno in _DISK:
        return f"{_DISK[error.errno]}{place}: free some and run the same command again, finished work is kept"
    return f"{error.strerror or error}{place}: check the path and its permissions"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="astroml-plugin",
        description="Survey images in, catalogs out: Dask and Zarr feed resident PyTorch models.",
        epilog="exit status: 0 done, 1 unexpected failure, 2 wrong input or settings, 3 some units failed",
    )
    parser.set_defaults(command=parser)
    parser.add_argument("--version", action="version", version=f"astroml-plugin {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_VerbParser)
    for name, verb in VERBS.items():
        verbs.add_parser(
            name,
            help=verb.description,
            description=verb.description,
            epilog=f"example:\n  astroml-plugin {name} {verb.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        ).specification = verb
    return parser


if __name__ == "__main__":
    entry()
