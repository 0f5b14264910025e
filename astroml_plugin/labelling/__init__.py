"""People in the loop: scores of objects in a file beside the catalog, a ranking that learns, a page of pictures.

Scores and learning need no torch; pictures do, and are imported from their modules.
"""

from astroml_plugin.labelling.relearn import LearnOptions, rerank
from astroml_plugin.labelling.scorefile import Score, ScoreFile

__all__ = ["LearnOptions", "Score", "ScoreFile", "rerank"]
