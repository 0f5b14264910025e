"""Sentences of an ingest on the skies of its tiles: sky that was taken off, and sky that is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from astroml_plugin.core.description import and_more
from astroml_plugin.sources.quality import CLEAR_OF_ZERO
from astroml_plugin.sources.tile_table import TileInfo

_LEAST = 1e-3
"""Noises of a pixel: a sky below it is none, and is not spoken of."""


@dataclass
class Skies:
    """Counts over the tiles that one ingest wrote."""

    taken: dict[str, float] = field(default_factory=dict)
    """Image -> largest level that was taken off it, in noises of a pixel; 0 where the noise is not known."""
    meshes: set[int] = field(default_factory=set)
    """Sides of the meshes in pixels; 0: one level."""
    left: list[str] = field(default_factory=list)
    """Tiles whose level is no sky at 0."""

    def add(self, tiles: Sequence[TileInfo]) -> None:
        """Count tiles that were written."""
        for info in tiles:
            for quality in info.quality.values():
                if quality.sky_taken and (abs(quality.sky_taken) > _LEAST * quality.noise or not quality.noise > 0):
                    level = abs(quality.sky_taken) / quality.noise if quality.noise > 0 else 0.0
                    self.taken[info.image] = max(self.taken.get(info.image, 0.0), level)
                    self.meshes.add(int(quality.sky_mesh))
            if any(quality.clear_of_zero for quality in info.quality.values()):
                self.left.append(info.name)

    def notes(self) -> tuple[str, ...]:
        """One sentence on the sky that was taken off, none where none was."""
        if not self.taken:
            return ()
        name, level = max(self.taken.items(), key=lambda pair: pair[1])
        meshes = sorted(self.meshes - {0})
        what = (
            f"a mesh of {'-'.join(dict.fromkeys(map(str, (meshes[0], meshes[-1]))))} pixels" if meshes else "one level"
        )
        how = (
            f"up to {level:.3g} times the noise of a pixel ({name})"
            if level
            else f"where the noise of a pixel is not known ({name})"
        )
        return (
            f"sky was taken off {len(self.taken)} {'image' if len(self.taken) == 1 else 'images'} by {what}, {how}; "
            "`info` shows it, --background off leaves it",
        )

    def warnings(self) -> tuple[str, ...]:
        """One sentence where tiles are not at 0."""
        if not self.left:
            return ()
        return (
            f"{and_more(self.left)}: the level is more than {CLEAR_OF_ZERO:g} times the noise of a pixel from 0: sky "
            "is left there, or light fills it, and bundles that find objects take it for objects (see --background)",
        )
