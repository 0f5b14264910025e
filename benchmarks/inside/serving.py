"""How a peer's program is spoken to: it gets ready once, then does one pass for each line that it reads."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Pass = Callable[[], dict[str, Any]]
"""Does the work once: `seconds` of wall time, and what else it has to tell, for JSON."""


def serve(imports: Callable[[], None], prepare: Callable[[dict[str, Any]], Pass]) -> None:
    """Answer with lines of JSON: first the seconds that imports and preparation took, then what each pass gives.

    What libraries print goes to standard error. Settings are JSON in the first argument.

    Args:
        imports: imports the peer.
        prepare: makes a pass from the settings: loads the model, opens data.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    begun = time.perf_counter()
    imports()
    imported = time.perf_counter()
    work = prepare(json.loads(sys.argv[1]))
    _say(answers, {"import": imported - begun, "load": time.perf_counter() - imported})
    for _ in sys.stdin:
        _say(answers, work())


def _say(answers: Any, told: dict[str, Any]) -> None:
    answers.write(json.dumps(told) + "\n")
    answers.flush()
