"""Completion of the command line in shells."""

from __future__ import annotations

import argparse

from workflows.verbs.arguments import Verb, add_arguments, call
from workflows.verbs.options import DONE

SHELLS = ("bash", "zsh", "fish")


def completion_script(shell: str, *, parser: argparse.ArgumentParser) -> str:
    """The script by which a shell completes verbs, options and files.

    Args:
        shell: bash, zsh or fish.
        parser: of the command.
    """
    import shtab

    verbs = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for one in verbs.choices.values():
        if len(one._actions) == 1:  # --help alone: of the verb that runs they are there
            add_arguments(one, one.specification, by_file=False)
            one.add_argument("--json", action="store_true", help="print the result as one line of JSON")
        for action in one._actions:
            if action.choices is None and action.nargs != 0 and action.type is None:
                action.complete = shtab.FILE
    return str(shtab.complete(parser, shell=shell))


def _completion(options: argparse.Namespace) -> int:
    print(call(options, parser=options.command))
    return DONE


VERBS = {
    "completion": Verb(
        _completion,
        "workflows.verbs.shells:completion_script",
        "Print a script that completes verbs, options and files in your shell.",
        "bash > ~/.local/share/bash-completion/completions/astroml-plugin",
        changed={"shell": {"choices": SHELLS}},
        hidden={"parser": "it is the command's own"},
    ),
}
