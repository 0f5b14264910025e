"""Nannies of worker processes: they start them again when they die, and stop them at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from distributed import Nanny
from distributed.core import Status

_log = logging.getLogger(__name__)


class OneByOneNanny(Nanny):
    """A nanny that starts one process at a time, and stops one that is still starting.

    Where a process dies while it starts, Dask's nanny begins the next start before the first one has ended. Both then
    read the same queue: the first takes the answer that is meant for the second, which waits for ever, and so does
    whoever stops the nanny (distributed 2026.7: `WorkerProcess._wait_until_connected`, `WorkerProcess.kill`).
    """

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._starting = asyncio.Lock()

    async def instantiate(self) -> Status:
        """Start a process when the start before has ended."""
        async with self._starting:
            return await super().instantiate()

    async def kill(self, timeout: float = 5, reason: str = "nanny-kill") -> None:
        """Stop the process; one that does not come up within `timeout` seconds is killed."""
        process = self.process
        if process is not None and process.status == Status.starting:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.running.wait(), timeout)
            if process.status == Status.starting and process.process is not None:
                _log.warning("a worker process that has not come up in %g s is killed", timeout)
                await process.process.kill()
                await asyncio.wait_for(process.stopped.wait(), timeout)
        await super().kill(timeout=timeout, reason=reason)
