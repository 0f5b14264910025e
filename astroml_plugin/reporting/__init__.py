"""Pages: what a run, an evaluation, a comparison, a search or a survey found, as one HTML file that opens offline.

The journey: a path becomes a *subject* (`page_of`), which is asked for numbers and never holds all rows. Each *maker*
of the subject's list gives a *section* of words, charts, tables and pictures, or says why it has none (`Missing`). The
sections are a *page*, and `html.document` writes it. A section is added in one place: the tuple `MAKERS` of a subject.
"""

from __future__ import annotations

from astroml_plugin.core.lazily import names_of

__all__ = ["Missing", "Page", "Section", "document", "page_of"]

_HOMES = {"pages": "Missing Page Section", "html": "document", "subjects": "page_of"}

__getattr__, __dir__ = names_of(__name__, _HOMES)
