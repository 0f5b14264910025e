"""Pages that verbs leave beside their results, and the options that ask for them or do without."""

from __future__ import annotations

import argparse

from workflows.verbs.options import DONE, complain


def add_no_report(verb: argparse.ArgumentParser) -> None:
    """Add --no-report, for verbs that leave a page."""
    verb.add_argument("--no-report", action="store_true", help="leave no page (report.html) beside the results")


def page_line(options: argparse.Namespace, place: str) -> str:
    """Leave a page about a result, and say where, as a further line of the outcome.

    What has been computed is worth more than its page: where that cannot be made, a warning says why.

    Args:
        options: of the verb; with --no-report nothing is made.
        place: folder or URL of the result.
    """
    if getattr(options, "no_report", False):
        return ""
    from astroml_plugin.core.errors import AstromlError
    from workflows.report import report

    try:
        return f"\npage: {report(place).out}"
    except (AstromlError, OSError) as error:
        complain(f"warning: no page was written: {error}", DONE)
        return ""
