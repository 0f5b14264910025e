"""The words behind `--cone`: how many of them there are, as declinations begin with a minus and SQL may follow."""

from __future__ import annotations

import re
from collections.abc import Sequence

from astroml_plugin.core.errors import InputError

_LIKE = re.compile(r"""[+\-−–]?[.\d][\d.:hdmsea-z°º'"′″’”+\-]*,?|[,a-z°º'"′″’”]{1,7}""", re.IGNORECASE)
_FLAG = "--cone"


def joined_cones(words: Sequence[str]) -> list[str]:
    """A command line in which `--cone` and its words are one word."""
    if _FLAG not in words:
        return list(words)
    place = list(words).index(_FLAG)
    behind = words[place + 1 :]
    count = _count(behind)
    if not count:
        return list(words)
    return [*words[:place], f"{_FLAG}={' '.join(behind[:count])}", *joined_cones(behind[count:])]


def _count(words: Sequence[str]) -> int:
    """How many of the words are those of a cone: the fewest that make one, with the unit behind them.

    Where none do, all that look like coordinates: the complaint is then about all of them.
    """
    if not words or words[0].startswith("--"):
        return 0
    run = 1
    while run < len(words) and _LIKE.fullmatch(words[run]):
        run += 1
    counts: list[int] = [one for one in (7, *range(1, run + 1)) if one <= run]
    for count in counts:
        text = " ".join(words[:count])
        if _is_circle(text):
            unit = words[count : count + 1]
            return count + (count < run and _is_circle(f"{text} {unit[0]}"))
    return run


def _is_circle(text: str) -> bool:
    from astroml_plugin.sky.circles import circle_of

    try:
        circle_of(text)
    except InputError:
        return False
    return True
