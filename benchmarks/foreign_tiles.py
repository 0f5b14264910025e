"""What the typicality flags on tiles of simulated skies that nothing was fitted to, at given and at found places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.core import storage
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.core.typing import F64, Bool
from astroml_plugin.evaluation.detection_metrics import match
from astroml_plugin.training.bundle import ModelBundle
from benchmarks.harness import scratch
from bundles.skies import SkySet, brightest_beside
from bundles.typicality import SURVEYS
from tests.pages import table
from workflows.infer import infer
from workflows.query import query
from workflows.simulate import simulate

SKIES = SkySet("tiles", 960, skies=8, brighter=3.0)
"""Skies of the kind that was fitted to, with other seeds, depths and densities."""

DEMO: dict[str, Any] = {
    "shape": (1792, 1792),
    "tile_size": 1024,
    "density": 40.0,
    "changes": {"population": {"star_fraction": 0.15, "bulge_probability": 0.3}},
}
"""The sky of the demo: noise of 2.5 in all bands, one PSF."""

DEPTHS = ((0.2, 0.36), (0.36, 0.66), (0.66, 1.2), (1.2, 3.0))
"""Ranges of the sky noise in r, counts of 30 mag; that of the LSST's ten years is 0.36."""

SNR = ((5.0, 7.0), (7.0, 10.0), (10.0, 20.0), (20.0, 50.0), (50.0, math.inf))
"""Ranges of the true S/N in r."""

_WITHIN = 2.0
"""Pixels between a found object and a true one."""


@dataclass(frozen=True)
class Rows:
    """Galaxies of skies as one bundle has them in its catalog, without those that it flags for other reasons."""

    snr: F64
    """(n,) S/N in r."""
    beside: F64
    """(n,) magnitudes by which the brightest other object within `SkySet.near` pixels is brighter; -inf without one."""
    sigma: F64
    """(n,) sky noise in r."""
    low: Bool
    """(n,) below the limit of the typicality."""
    flagged: int
    """Galaxies of S/N above `SkySet.snr` that are flagged for other reasons, and left out."""

    @classmethod
    def joined(cls, parts: list[Rows]) -> Rows:
        """Those of several skies."""
        columns = (np.concatenate([getattr(one, name) for one in parts]) for name in ("snr", "beside", "sigma", "low"))
        return cls(*columns, sum(one.flagged for one in parts))

    def rate(self, wanted: Bool) -> dict[str, Any]:
        """Objects (n,) and the part of them below the limit."""
        return {"objects": int(wanted.sum()), "untypical": float(self.low[wanted].mean()) if wanted.any() else None}

    @property
    def alone(self) -> Bool:
        """(n,) nothing much brighter lies beside them."""
        return self.beside <= 2.5 * math.log10(SKIES.brighter)

    @property
    def bright(self) -> Bool:
        """(n,) as bright as those that were fitted to."""
        return self.snr >= SKIES.snr


def measured(bundles: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Rates of bundles that ship and know what is typical: bundle -> row of the table -> rate."""
    folder = storage.join(str(scratch()), "tiles")
    places = [*bundles, *(_without(name, storage.join(folder, f"plain_{name}")) for name in bundles)]
    given: dict[str, list[Rows]] = {name: [] for name in bundles}
    found: dict[str, list[Rows]] = {name: [] for name in bundles}
    demo = {}
    for seed in (*range(SKIES.seed, SKIES.seed + SKIES.skies), 0):
        options = SKIES.options(seed - SKIES.seed) if seed else DEMO
        sky = simulate(out=storage.join(folder, f"sky-{seed}"), kind="survey", seed=seed or 2027, **options)
        assert sky.truth is not None
        truth = storage.read_table(sky.truth)
        sigma = float(options["changes"].get("camera", {}).get("sky_sigma", 2.5))
        out = storage.join(
            folder, f"catalog-{seed}-{storage.digest([ModelBundle.load(one).sha256 for one in places])[:8]}"
        )
        catalog = infer(sky.source, bundle=places, objects=truth, out=out).catalog
        rows = _rows(query(catalog, _SQL).to_arrow(), truth, sigma, bundles)
        if not seed:
            demo = rows
            continue
        for name, one in rows.items():
            given[name].append(one)
        catalog = infer(sky.source, bundle=["segmentation", *places], out=f"{out}-found").catalog
        for name, one in _rows(query(catalog, _SQL).to_arrow(), truth, sigma, bundles).items():
            found[name].append(one)
    return {
        name: _rates(Rows.joined(given[name]), Rows.joined(found[name]), demo[name], _most_noise(name))
        for name in bundles
    }


_SQL = 'SELECT * FROM catalog WHERE "primary"'


def _without(place: str, out: str) -> str:
    """A copy of a bundle that does not know what is typical: its flags are for other reasons."""
    model = ModelBundle.load(place)
    card = replace(model.card, name=f"plain_{place}")
    return ModelBundle.save(out, model.network(), card, model.known_objects()).url


def _rows(catalog: pa.Table, truth: pa.Table, sigma: float, names: Sequence[str]) -> dict[str, Rows]:
    place = [[table[axis].to_numpy() for axis in "xy"] for table in (catalog, truth)]
    number = match(*place[0], *place[1], _WITHIN)
    columns = {name: truth[name].to_numpy(zero_copy_only=False)[number] for name in ("snr", "class", "mag")}
    beside = columns["mag"] - brightest_beside(np.stack(place[1], axis=1), truth["mag"].to_numpy(), SKIES.near)[number]
    wanted = (number >= 0) & (columns["class"] != "star")
    rows = {}
    for name in names:
        typicality = catalog[f"{name}_typicality"].to_numpy()
        bits = catalog[f"plain_{name}_flags"].to_numpy()
        other = bits & int(ObjectFlag.OUT_OF_DOMAIN) > 0
        whole = bits & int(ObjectFlag.EDGE) == 0
        low = (catalog[f"{name}_flags"].to_numpy() & int(ObjectFlag.OUT_OF_DOMAIN) > 0) & ~other
        kept = wanted & whole & ~other & np.isfinite(typicality)
        flagged = int((wanted & whole & other & (columns["snr"] >= SKIES.snr)).sum())
        rows[name] = Rows(columns["snr"][kept], beside[kept], np.full(kept.sum(), sigma), low[kept], flagged)
    return rows


def _most_noise(name: str) -> float:
    """Sky noise of the shallowest sky that a bundle was fitted to."""
    return max(one.sigma[1] for one in SURVEYS[name] if isinstance(one, SkySet))


def _rates(given: Rows, found: Rows, demo: Rows, most: float) -> dict[str, Any]:
    told = {}
    for low, high in DEPTHS:
        deep = (given.sigma >= low) & (given.sigma < high)
        told[f"noise {low:g} to {high:g}"] = given.rate(given.bright & given.alone & deep)
    deep = given.sigma < most
    for low, high in SNR:
        name = f"S/N {low:g} to {high:g}" if math.isfinite(high) else f"S/N above {low:g}"
        told[name] = given.rate(deep & given.alone & (given.snr >= low) & (given.snr < high))
    told["something brighter beside"] = given.rate(deep & given.bright & ~given.alone)
    told["found places"] = found.rate((found.sigma < most) & found.bright & found.alone)
    told["sky of the demo"] = demo.rate(demo.bright & demo.alone)
    told["flagged otherwise"] = {
        "objects": given.flagged + int(given.bright.sum()),
        "untypical": given.flagged / (given.flagged + int(given.bright.sum())),
    }
    return told


def text(rates: dict[str, dict[str, Any]]) -> str:
    """Table of the rates, with what they are."""
    names = list(rates)
    rows = [[row, *(_cell(rates[name][row]) for name in names)] for row in rates[names[0]]]
    head = (
        f"Galaxies of {SKIES.skies} simulated skies (seeds {SKIES.seed} to {SKIES.seed + SKIES.skies - 1}, "
        f"{SKIES.side}² pixels, 20 to 50 objects per square arcminute, galaxies to 26.2 mag, stars of 17 to 25.3) in "
        "catalogs of `infer`, at their true places: part below the limit of the typicality, of those that carry the "
        "flag for no other reason (last row: the part that does) and do not lie at the edge. The noise is that of r, "
        f"in counts of 30 mag; 0.36 is that of the LSST's ten years. Unless told, S/N in r is above {SKIES.snr:g} and "
        f"nothing within {SKIES.near:g} pixels is more than {SKIES.brighter:g} times as bright. `found places` are "
        f"those of `segmentation`, within {_WITHIN:g} pixels of a true one. Rows of `lens` but those of a noise are "
        "without the noise above 1.2, at which it was not fitted. What was fitted to were other skies (seeds 420 to "
        "469).\n\n"
    )
    return head + table(["galaxies", *names], rows)


def _cell(rate: dict[str, Any]) -> str:
    if rate["untypical"] is None:
        return "–"
    return f"{rate['untypical']:.3f} of {rate['objects']:,}"
