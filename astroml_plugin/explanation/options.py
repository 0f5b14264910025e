"""Options of explanations, and what a run gives back. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import refuse_below, refuse_choices
from astroml_plugin.explanation.trust import Trust

METHODS = ("integrated-gradients", "gradient", "guided", "deconvnet", "occlusion")
BASELINES = ("blank", "noise")
MAPS = ("float16", "float32", "none")
PICTURES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class MethodOptions:
    """How attributions are made."""

    method: str = "integrated-gradients"
    """"integrated-gradients" (attributions that add up), "gradient" (change of the number per change of a pixel),
    "guided" (guided backpropagation), "deconvnet" or "occlusion"."""
    baseline: str = "blank"
    """Where integrated gradients and occlusion begin: "blank" sky, or "noise" as in the border of each stamp."""
    draws: int = 4
    """Noise draws whose mean is taken."""
    tolerance: float = 1e-3
    """Largest error of the sum of integrated gradients, as a part of the difference from the baseline; objects beyond
    it have `complete` = false."""
    forwards: int = 200
    """Looks at an object of integrated gradients at most, for each draw; most objects need 20 to 50."""
    window: int = 8
    """Side of the squares of occlusion, pixels."""
    stride: int = 4
    """Pixels between squares of occlusion."""
    seed: int = 0
    """Seed of noise draws."""

    def __post_init__(self) -> None:
        refuse_choices(self, {"method": METHODS, "baseline": BASELINES}, "explain's")
        refuse_below(self, {"seed": 0})
        if self.draws < 1 or self.window < 1 or self.stride < 1:
            raise InputError(
                f"draws ({self.draws}), window ({self.window}) and stride ({self.stride}) must be 1 or more"
            )
        if not 0 < self.tolerance < 1 or self.forwards < LEAST_FORWARDS:
            raise InputError(
                f"tolerance ({self.tolerance}) must be above 0 and below 1, forwards ({self.forwards}) "
                f"{LEAST_FORWARDS} or more"
            )


LEAST_FORWARDS = 17
"""Looks at an object that integrated gradients begin with."""


@dataclass(frozen=True)
class ExplainOptions(MethodOptions):
    """Which rows of a catalog are explained, what of them, and how."""

    by: str | None = None
    """Column that ranks: the objects of its highest values are explained; default `p_<class>` of the class that is
    searched for, else `anomaly_score`."""
    where: str | None = None
    """SQL condition on the rows that compete."""
    number: str | None = None
    """Number that is explained, such as logit_lens, e1 or anomaly_score; default what `by` names, else the bundle's
    first."""
    bundle: str | None = None
    """The bundle: its path, URL or shipped name, or its name in the catalog; default the one that `by` belongs to."""
    source: str | None = None
    """Survey or Stamps with the pixels; default the one that the catalog was made from, at its old place."""
    maps: str = "float16"
    """Numbers of the attribution maps in Zarr: "float16", "float32", or "none" to write summaries only."""
    faithfulness: int = 0
    """Objects, drawn at random, on which the attributions are judged: do their pixels matter more than others, do maps
    follow the weights; 0: none."""
    picture: str | None = None
    """File (.png, .pdf or .svg) for a picture of the first objects with their maps."""
    device: str | None = None
    """Torch device; default CUDA where there is one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_choices(self, {"maps": MAPS}, "explain's")
        if self.faithfulness < 0 or self.faithfulness == 1:
            raise InputError(f"faithfulness ({self.faithfulness}) needs 2 objects or more, or 0 for none; 64 are usual")
        if self.picture is not None and not self.picture.lower().endswith(PICTURES):
            raise InputError(f"a picture cannot be written to {self.picture}: end it in {', '.join(PICTURES)}")
        if self.picture is not None and self.maps == "none":
            raise InputError("a picture needs maps: leave --maps none away")


@dataclass(frozen=True)
class DreamOptions:
    """How stamps are changed."""

    steps: int = 128
    """Steps."""
    rate: float = 0.05
    """Largest part of the range of pixels that a step changes, in the root mean square."""
    scales: tuple[float, ...] = (1.0, 2.0, 4.0)
    """Widths in pixels of the Gaussians that smooth the change; their mean is taken."""
    jitter: int = 2
    """Pixels by which the stamp is moved at random before each look."""
    decay: float = 0.01
    """Part of what stands out from blank sky that each step takes away."""
    seed: int = 0
    """Seed of the moves."""

    def __post_init__(self) -> None:
        refuse_below(self, {"steps": 1, "jitter": 0, "seed": 0})
        widths = bool(self.scales) and all(0 <= scale < math.inf for scale in self.scales)
        if not 0 < self.rate < math.inf or not widths or not 0 <= self.decay < 1:
            raise InputError(
                f"a dream needs a rate ({self.rate}) above 0, scales ({', '.join(map(str, self.scales)) or 'none'}) of "
                f"0 or more and a decay ({self.decay}) from 0 to below 1"
            )


@dataclass(frozen=True)
class DreamPictureOptions(DreamOptions):
    """Choices of the pictures of a network, and how stamps are changed for them."""

    steps: int = 96
    """Steps."""
    rate: float = 0.02
    """Largest part of the range of pixels that a step changes, in the root mean square."""
    decay: float = 0.05
    """Part of what stands out from blank sky that each step takes away; more leaves only what raises the number."""
    numbers: tuple[str, ...] = ()
    """Numbers to raise, such as logit_lens; default all that the bundle has, but for probabilities and `called`."""
    layers: tuple[str, ...] = ()
    """Layers whose filters are drawn; default four convolutions that see the image, from the first to the last."""
    channels: int = 8
    """Filters of each layer, from the first one."""
    objects: int = 2
    """Stamps whose feature maps are drawn, from the first one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels < 1 or self.objects < 1:
            raise InputError(f"channels ({self.channels}) and objects ({self.objects}) must be 1 or more")


@dataclass(frozen=True)
class Explanation:
    """Outcome of a run."""

    catalog: str
    """URL of the catalog."""
    name: str
    """Name of the extension: the view to join in queries."""
    bundle: str
    """Name of the bundle."""
    number: str
    """The number that is explained."""
    method: str
    """How."""
    objects: int
    """Objects of the list."""
    rows: int
    """Objects that this run explained."""
    rows_skipped: int
    """Objects that were explained before."""
    left_out: int
    """Rows whose object_id occurs twice in their tile: they cannot be joined."""
    complete: float | None
    """Part of the objects whose attributions add up within the tolerance; None for methods that do not promise it."""
    forwards: float
    """Mean looks at an object."""
    maps: str | None
    """Zarr array of the maps (object, band, y, x); None where none were written."""
    words: tuple[str, ...]
    """Sentences that the summaries make."""
    seconds: float
    """Wall time."""
    failed: tuple[tuple[str, str], ...] = ()
    """(objects, reason) of what could not be read; the next run tries it again."""
    differs: float | None = field(default=None)
    """Largest difference between a number of the catalog and what the network said here; None where none compares."""
    trust: Trust | None = None
    """Figures of the objects that were judged; None where none were."""
