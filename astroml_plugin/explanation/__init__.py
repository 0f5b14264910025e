"""Explanations: which pixels made a number that a network says of an object.

A bundle and one of its numbers make a `Target`. `Seen` are stamps as its network gets them. A method makes an
`Attribution` of both, and a few numbers of that are written beside the rows of a catalog. The names below are imported
when they are first used: options need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from astroml_plugin.core.lazily import names_of

if TYPE_CHECKING:
    from astroml_plugin.explanation.attribution import Attribution
    from astroml_plugin.explanation.checks import Faithfulness, faithfulness, randomised
    from astroml_plugin.explanation.dream_pictures import DreamPictures, draw_dreams
    from astroml_plugin.explanation.dreams import Dream, Filter, dream, feature_maps, layers
    from astroml_plugin.explanation.methods import attributed
    from astroml_plugin.explanation.options import (
        DreamOptions,
        DreamPictureOptions,
        ExplainOptions,
        Explanation,
        MethodOptions,
    )
    from astroml_plugin.explanation.run import explain_rows
    from astroml_plugin.explanation.store import ExplanationStore
    from astroml_plugin.explanation.summaries import Layout, summarised
    from astroml_plugin.explanation.target import Seen, Target, explainable, seen_by
    from astroml_plugin.explanation.trust import Score, Trust
    from astroml_plugin.explanation.words import Finding, findings, in_words

__all__ = [
    "Attribution",
    "Dream",
    "DreamOptions",
    "DreamPictureOptions",
    "DreamPictures",
    "ExplainOptions",
    "Explanation",
    "ExplanationStore",
    "Faithfulness",
    "Filter",
    "Finding",
    "Layout",
    "MethodOptions",
    "Score",
    "Seen",
    "Target",
    "Trust",
    "attributed",
    "draw_dreams",
    "dream",
    "explain_rows",
    "explainable",
    "faithfulness",
    "feature_maps",
    "findings",
    "in_words",
    "layers",
    "randomised",
    "seen_by",
    "summarised",
]

_HOMES = {
    "attribution": "Attribution",
    "dream_pictures": "DreamPictures draw_dreams",
    "dreams": "Dream Filter dream feature_maps layers",
    "checks": "Faithfulness faithfulness randomised",
    "methods": "attributed",
    "options": "DreamOptions DreamPictureOptions ExplainOptions Explanation MethodOptions",
    "run": "explain_rows",
    "store": "ExplanationStore",
    "summaries": "Layout summarised",
    "target": "Seen Target explainable seen_by",
    "trust": "Score Trust",
    "words": "Finding findings in_words",
}

__getattr__, __dir__ = names_of(__name__, _HOMES)
