"""The two option objects of a run: one enters its identity as a whole, the other never does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from astroml_plugin.catalog.objects.settings import ObjectSettings
from astroml_plugin.compute.choices import BACKENDS, COMPILING, PRECISIONS, RUNTIMES, check_device
from astroml_plugin.compute.cluster import UNIT_TIMEOUT, ClusterOptions
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import refuse_choices, refuse_unknown, with_changes
from astroml_plugin.core.typing import Arcsec
from astroml_plugin.pixels import refuse_implausible
from astroml_plugin.tasks.choices import RESAMPLE

_SAME_ZERO_POINT = 1e-3
"""Magnitudes."""

_LEAST_MEMORY = 10**6
"""Bytes of pixels below which no source has a unit."""

_ALWAYS = ("band", "precision")
"""Options that every catalog's identity names, also where they have their defaults."""


@dataclass(frozen=True)
class MeasureOptions:
    """Options that change rows: a catalog belongs to one choice of these."""

    band: str | None = None
    """Band for bundles that take any single one."""
    precision: str = "float32"
    """"float32", or "auto": what the catalog has; a new one is in half precision on GPUs (bfloat16, float16 on GPUs
    before 2020), and on CPUs that have bfloat16 where it is faster."""
    assumed_psf_fwhm: Arcsec = 0.0
    """Arcsec; objects without a PSF are measured as if it were a round Gaussian of this FWHM (flag NO_PSF). 0: a bundle
    that needs a PSF refuses a source without."""
    resample: str = "auto"
    """Pixels of another scale than a bundle's: "auto" resamples stamps where the bundle's answer needs it, "off" takes
    pixels as they are; objects that a bundle does not know so are flagged OUT_OF_DOMAIN."""
    zero_point: tuple[float, ...] = ()
    """AB magnitude of one unit of the pixels, where the source does not know it: one for all bands, or one per band of
    the source."""
    options: dict[str, Any] = field(default_factory=dict)
    """Run options of the bundles' tasks: NAME, for every bundle that takes it, or BUNDLE.NAME -> value. Of classes
    `prior` (class -> fraction of the survey's objects) and `symmetries` (1, 2, 4 or 8 that are averaged over)."""

    def __post_init__(self) -> None:
        refuse_choices(self, {"precision": PRECISIONS, "resample": RESAMPLE}, "infer's")
        refuse_implausible(self.zero_point, "infer --zero-point")
        if not 0 <= self.assumed_psf_fwhm < math.inf:
            raise InputError(f"a PSF of FWHM {self.assumed_psf_fwhm} arcsec cannot be assumed: give a number above 0")

    def zero_points(self, bands: Sequence[str], known: Sequence[float | None]) -> tuple[float | None, ...]:
        """Zero points of a source's bands: those that it knows, else what is stated here.

        Raises:
            InputError: as many are stated as there are no bands, or others than the source knows.
        """
        if len(self.zero_point) not in (0, 1, len(bands)):
            told = f"{len(self.zero_point)} zero points for the bands {', '.join(bands)}"
            raise InputError(f"{told}: give one for all, or one per band")
        self._refuse_contradiction(bands, known)
        stated: Sequence[float | None] = self.zero_point or (None,)
        stated = stated if len(stated) == len(bands) else [stated[0]] * len(bands)
        return tuple(said if zero is None else zero for zero, said in zip(known, stated, strict=True))

    def _refuse_contradiction(self, bands: Sequence[str], known: Sequence[float | None]) -> None:
        """Refuse another number than the source knows: it would do nothing."""
        if len(self.zero_point) == len(bands):
            pairs = list(zip(bands, known, self.zero_point, strict=True))
        elif self.zero_point and None not in known:
            pairs = [(name, zero, self.zero_point[0]) for name, zero in zip(bands, known, strict=True)]
        else:
            return
        for name, zero, said in pairs:
            if zero is not None and abs(zero - said) > _SAME_ZERO_POINT:
                raise InputError(
                    f"the source knows zero point {zero:g} of band {name}, --zero-point {said:g} would do nothing: "
                    f"leave it away; if the source is wrong, ingest again with --zero-point"
                )

    def run_options(self) -> dict[str, Any]:
        """All options that tasks may take, as `assign_options` reads them."""
        resample = None if self.resample == "auto" else self.resample
        own = {"band": self.band, "assumed_psf_fwhm": self.assumed_psf_fwhm or None, "resample": resample}
        return {**own, **self.options}

    def with_run_options(self, given: Mapping[str, Any]) -> MeasureOptions:
        """These options with `AssignedOptions.given`: checked, as plain values."""
        known = {"band": None, "assumed_psf_fwhm": 0.0, "resample": "auto"}
        common = {name: given.get(name, default) for name, default in known.items()}
        return replace(self, **common, options={name: value for name, value in given.items() if name not in known})

    def identity(self) -> dict[str, Any]:
        """Plain values that enter a catalog's identity: every option that is set, those of tasks by their own names."""
        own = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "options"}
        defaults = {item.name: item.default for item in fields(self)}
        changed = {name: value for name, value in own.items() if name in _ALWAYS or value != defaults[name]}
        return {**changed, **self.options}


@dataclass(frozen=True)
class ExecutionOptions(ClusterOptions):
    """Options that change no row: where and how a run is carried out, and what it accepts."""

    device: str | None = None
    """Torch device; default CUDA where there is one."""
    batch: int | None = None
    """Stamps per forward; default 128 on a CPU, of small ones up to 512; on CUDA what a look at the network says that
    its memory holds. Where memory does not hold them after all, the batch is halved."""
    compiling: str = "auto"
    """"auto" compiles networks in float32 on CUDA once they have seen some hundred whole batches, "always" at once and
    on CPUs too, "never" not at all. In half precision all rows of a catalog are of compiled networks or none."""
    backend: str = "auto"
    """Runtime of networks on a CPU: "torch", "onnx" (ONNX Runtime), "openvino", or "auto": the fastest that is
    installed, once a process has spent 30 s in a network. Its answers must be those of torch, else torch runs."""
    memory: int | None = None
    """Bytes of pixels that a worker process holds at once (a unit that is larger runs alone); default half of what its
    host has free at the first unit, shared among the workers there."""
    unit_timeout: float = UNIT_TIMEOUT
    """Seconds from its submission after which a unit is taken to hang; 0 never. A worker process of a cluster that is
    started here is then replaced and the unit tried once more; elsewhere the unit has failed. The time in which a batch
    system has no job running does not count."""
    shard: tuple[int, int] | None = None
    """(I, N) does every N-th unit from the I-th on, for array jobs."""
    label_maps: bool = True
    """Write the label maps of a bundle that finds objects (`read_labels` reads them)."""

    def __post_init__(self) -> None:
        refuse_choices(self, {"compiling": COMPILING, "backend": BACKENDS}, "infer's")
        if self.compiling == "always" and self.backend in RUNTIMES:
            raise InputError(
                f"--compile always compiles with torch, and --backend {self.backend} runs without: choose one"
            )
        super().__post_init__()
        if (self.device or "").startswith("cuda") and self.scheduler == "processes" and self.workers != 1:
            raise InputError(
                "--scheduler processes would put many processes on one GPU: use --scheduler cuda, which starts one "
                "process per GPU, or --workers 1"
            )
        if not 0 <= self.unit_timeout < math.inf:
            raise InputError(
                f"a unit cannot be given {self.unit_timeout} s: give seconds above 0, or 0 to wait for ever"
            )
        if self.batch is not None and self.batch < 1:
            raise InputError(f"batch {self.batch}: give 1 or more stamps per forward")
        if self.memory is not None and self.memory < _LEAST_MEMORY:
            raise InputError(
                f"{self.memory} bytes of memory hold no unit: give {_LEAST_MEMORY // 10**6} MB (--memory is in GB) or "
                f"more, or leave it out"
            )
        if self.device is not None:
            check_device(self.device)
        if self.shard is not None and not 0 <= self.shard[0] <= self.shard[1] != 0:
            raise InputError(f"shard {self.shard[0]} of {self.shard[1]}: give (I, N) with I from 0 to N")


@dataclass(frozen=True)
class ObjectTable(ObjectSettings):
    """An objects table and how it is read."""

    table: Any = None
    """Objects to measure in a Survey: path or URL, or an astropy, pandas or Arrow table."""
    extend: bool = False
    """Add this table to the objects that the catalog has; without it, another table is refused."""


def run_choices(
    measure: MeasureOptions | None, execution: ExecutionOptions | None, changes: Mapping[str, Any]
) -> tuple[MeasureOptions, ExecutionOptions]:
    """Both option objects with single fields changed by name.

    Raises:
        InputError: a name that neither has (gives the nearest), or a value that cannot be.
    """
    mine = {item.name for item in fields(MeasureOptions)}
    refuse_unknown(changes, mine | {item.name for item in fields(ExecutionOptions)}, "the options of infer")
    ours = {name: value for name, value in changes.items() if name in mine}
    if isinstance(zero_point := ours.get("zero_point"), int | float):
        ours["zero_point"] = (zero_point,)
    theirs = {name: value for name, value in changes.items() if name not in mine}
    return (
        with_changes(MeasureOptions, measure, ours, "the options of infer"),
        with_changes(ExecutionOptions, execution, theirs, "the options of infer"),
    )
