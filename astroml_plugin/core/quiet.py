"""Python's warning filters are global: who changes them for a moment holds this lock, or threads undo one another's."""

from __future__ import annotations

import threading

FILTERS = threading.RLock()
"""Held while a thread has other warning filters."""
