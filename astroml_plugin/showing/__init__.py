"""Pictures of a survey and of what a catalog found on it.

The journey: a request becomes a *view*, a box of one parent image (`view`). Its pixels are read and binned
(`pixels`), the objects of a catalog within it are fetched (`objects`), and both are painted with a compass and a scale
bar (`picture`).
"""

from __future__ import annotations

from astroml_plugin.core.lazily import names_of

__all__ = ["Showing", "View", "choose", "show_view"]

_HOMES = {"view": "View choose", "picture": "Showing show_view"}

__getattr__, __dir__ = names_of(__name__, _HOMES)
