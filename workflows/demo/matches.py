"""Objects that the demo found, beside the truth of the simulated sky."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog.overlay import LabelImage
from astroml_plugin.evaluation.detection_metrics import match
from astroml_plugin.evaluation.gallery import Shapes, Snapshot, cut
from astroml_plugin.sources.survey import Survey

FAINTEST = 10.0
"""S/N from which what was found is compared with the truth."""

_SHOWN = 16
_CUTOUT = 40


class DemoMatches:
    """Catalog rows beside the truth of the objects that they are: each the other's nearest, within 3 pixels."""

    def __init__(self, rows: pa.Table, truth: pa.Table) -> None:
        places = [table[axis].to_numpy() for table in (rows, truth) for axis in "xy"]
        number = match(*places)
        hit = np.flatnonzero(number >= 0)
        mine, theirs = rows.take(hit), truth.take(number[hit])
        self.rows = len(rows)
        self.pure = len(hit) / max(1, len(rows))
        self.complete = float((theirs["snr"].to_numpy() > FAINTEST).sum() / (truth["snr"].to_numpy() > FAINTEST).sum())
        self.columns: dict[str, Any] = {name: np.array(mine[name].to_pylist()) for name in mine.column_names}
        for name in ("class", "e1", "e2", "snr", "mag"):
            self.columns[f"true_{name}"] = np.array(theirs[name].to_pylist())

    def _pairs(self, names: tuple[str, str]) -> np.ndarray:
        return np.stack([self.columns[name].astype(float) for name in names], axis=1)

    def shapes(self) -> Shapes:
        """Measured and true ellipticities of galaxies of S/N above `FAINTEST`."""
        measured, true = self._pairs(("shapes_e1", "shapes_e2")), self._pairs(("true_e1", "true_e2"))
        snr = self.columns["true_snr"].astype(float)
        kept = (snr > FAINTEST) & np.isfinite(measured).all(1) & np.isfinite(true).all(1)
        return Shapes(true[kept], measured[kept], snr[kept])

    def accuracy(self) -> float:
        """Share of right classes among objects of S/N above `FAINTEST`."""
        kept = self.columns["true_snr"].astype(float) > FAINTEST
        return float(np.mean((self.columns["classes_label"] == self.columns["true_class"])[kept]))

    def snapshots(self, survey: Survey, outlines: LabelImage) -> list[Snapshot]:
        """Bright objects of all classes, cut from the survey's tiles, and their outlines."""
        chosen = self._examples()
        numbers = dict(zip(outlines.objects["object_id"].to_pylist(), outlines.objects["label"].to_pylist()))
        tiles = {info.name: info for info in survey.iter_tiles()}
        read: dict[str, np.ndarray] = {}
        shots = []
        for i in chosen:
            info = tiles[self.columns["tile"][i]]
            if info.name not in read:
                read[info.name] = survey.read_tile(info).image
            x, y = float(self.columns["x"][i]) - info.outer.x0, float(self.columns["y"][i]) - info.outer.y0
            label = str(self.columns["classes_label"][i])
            probability = float(self.columns[f"classes_p_{label}"][i])
            true = str(self.columns["true_class"][i])
            title = f"{label} {probability:.2f}" + ("" if true == label else f" (is {true})")
            pixels = cut(read[info.name], x, y, _CUTOUT)
            around = cut(outlines.labels[None], self.columns["x"][i], self.columns["y"][i], _CUTOUT)[0]
            own = around == numbers.get(int(self.columns["object_id"][i]), -1)
            shots.append(Snapshot(pixels, title, label, true == label, own))
        return shots

    def _examples(self) -> list[int]:
        """Indices of a few objects of each true class, S/N 20 to 300."""
        snr, true = self.columns["true_snr"].astype(float), self.columns["true_class"]
        rng, groups = np.random.default_rng(1), []
        for name in np.unique(true):
            candidates = np.flatnonzero((true == name) & (snr > 20) & (snr < 300) & (self.columns["flags"] == 0))
            groups.append(rng.permutation(candidates)[: _SHOWN // 3 + 1])
        return [int(i) for group in groups for i in group][:_SHOWN]
