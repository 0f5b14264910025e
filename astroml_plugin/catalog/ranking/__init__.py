"""Short lists from catalogs of any size: the top by a score, near-duplicates folded, and what is like an object."""

from astroml_plugin.catalog.ranking.space import Space
from astroml_plugin.catalog.ranking.top import Ranked, like, score_sql, top

__all__ = ["Ranked", "Space", "like", "score_sql", "top"]
