"""Fixed layers that measure what a reader can check: size, S/N, asymmetry, a second source, lines, sharp pixels.

Nothing here is learned. All stamps of a batch are measured together, on any device, and every number is the same for a
stamp that was turned by quarters or mirrored about its centre pixel. Pixels come in units of the sky noise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from astroml_plugin.core.tracing import constant, is_traced
from astroml_plugin.networks.layers import lower_median
from astroml_plugin.pixels import native, native_structure

PARTS = (
    "log_snr",
    "log_radius",
    "asymmetry",
    "second_source",
    "residual",
    "line",
    "sharpness",
    "plateau",
)
"""Columns of `Structure`, see there."""

_SIGMA_OF_MAD = 1.4826
_PETROSIAN = 0.2
_CORE, _REACH = 25, 2
"""Side of the square in which the centre of symmetry is sought, and how far from the middle in half pixels."""
_NEAREST = 4.0
"""Pixels within which a peak is the object's own."""
_ANGLES, _CLIPPED, _INNER = 20, 4.0, 8.0
"""Directions of lines; noise beyond which a pixel adds nothing to a line; pixels that are not looked at."""
_CHUNK = 32
_SHARP = 3.0
"""Times the mean of its eight neighbours above which no PSF makes a pixel."""


def odd(image: Tensor) -> Tensor:
    """Images (..., h, w) without the first row and column of even sides: the pixel size // 2 is in their middle."""
    return image[..., 1 - image.shape[-2] % 2 :, 1 - image.shape[-1] % 2 :]


def doubled(image: Tensor) -> Tensor:
    """Means of 3 x 3 pixels at twice the pixel size of images (..., s, s) with odd s."""
    rows = image[..., 1:-1:2, :] + image[..., :-2:2, :] + image[..., 2::2, :]
    return (rows[..., 1:-1:2] + rows[..., :-2:2] + rows[..., 2::2]) / 9


class Structure(nn.Module):
    """Measurements (n, `PARTS`) of stamps in units of the noise.

    On the mean of the bands times the square root of their number:

    - `log_snr`: lg of the light within 1.5 Petrosian radii over its noise; `log_radius`: lg of the radius of half of
      that light, pixels. Both of the light on both sides of the centre (the lesser of each pair of pixels, less what
      noise takes away), so that a neighbour changes them little.
    - `asymmetry`: |I - I turned by half| about the best of 25 centres, less that of the noise, over the light, within
      1.5 Petrosian radii (Conselice 2003, ApJS 147, 1).
    - `second_source`: the brightest other peak over the centre, in 5 x 5 pixels, fading with the distance in Petrosian
      radii.
    - `residual`: the brightest 5 x 5 pixels of the light that has no partner across the centre, within two Petrosian
      radii, over the centre.
    - `line`: the highest mean of a straight strip across the stamp, in its noise, bright pixels clipped and the object
      left out: a trail.
    - `sharpness`: by how much a pixel of any band exceeds three times the mean of its neighbours, in noise: cosmic
      rays. `plateau`: lg of 1 + pixels that share the highest value of a bright stamp: saturation. Both in the middle
      half of the stamp.
    """

    def forward(self, image: Tensor, weight: Tensor) -> Tensor:
        """(n, `PARTS`) float32 from image (n, b, h, w) in units of the noise and weight, the same, 0 where invalid."""
        if _compiled_code_takes(image):
            return _by_compiled_code(odd(image))
        if image.device.type != "cpu" or is_traced():
            return self._measured(image, weight)
        chunks = zip(image.split(_CHUNK), weight.split(_CHUNK))  # what a chunk needs stays in the processor's cache
        return torch.cat([self._measured(*chunk) for chunk in chunks])

    def _measured(self, image: Tensor, weight: Tensor) -> Tensor:
        pixels = odd(image)
        quarter = pixels.shape[-1] // 4
        middle = pixels[..., quarter:-quarter, quarter:-quarter]
        light = pixels.mean(1) * math.sqrt(pixels.shape[1])
        noise = _border_noise(light)
        turned = _turned(light)
        both = torch.minimum(light, turned) + noise[:, None, None] / math.sqrt(math.pi)
        edge, log_radius, total = _sizes(both)
        radius = _radius(light.shape[-1], light.device)
        inside = (radius <= edge[:, None, None]).to(light.dtype)
        area = inside.sum((1, 2))
        difference = ((light - turned).abs() * inside).sum((1, 2)) - area * 2 * noise / math.sqrt(math.pi)
        whole = (light.abs() * inside).sum((1, 2)).clamp_min(1e-6)
        wide = _box(light, 5)
        centre = torch.where(radius <= _NEAREST, wide, -torch.inf).amax((1, 2))
        centre = torch.maximum(centre, noise)
        columns = [
            (total / (noise * area.sqrt()).clamp_min(1e-6)).clamp_min(0.1).log10(),
            log_radius,
            difference / whole,
            _second_source(light, wide, noise, radius, edge) / centre,
            _residual(light, both, noise, radius, edge) / centre,
            _line(light, noise),
            _sharpness(middle),
            _plateau(middle),
        ]
        return torch.nan_to_num(torch.stack(columns, dim=1), 0.0, 1e6, -1e6)


def _compiled_code_takes(image: Tensor) -> bool:
    if not native.takes(image):  # first: while a network is exported, `len` would fix the number of stamps
        return False
    side = image.shape[-1] - 1 + image.shape[-1] % 2
    fits = image.shape[-2] == image.shape[-1] and native_structure.SMALLEST <= side <= native_structure.LARGEST
    return fits and image.dtype == torch.float32 and len(image) > 0


def _by_compiled_code(pixels: Tensor) -> Tensor:
    side = int(pixels.shape[-1])
    found, clipped = native_structure.structure(pixels.numpy(), _places(side))
    columns = torch.from_numpy(found)
    columns[:, PARTS.index("line")] = (torch.from_numpy(clipped).flatten(1) @ _strips(side // 2, pixels.device)).amax(1)
    return torch.nan_to_num(columns, 0.0, 1e6, -1e6)


@constant
def _places(side: int) -> native_structure.Places:
    cpu, rings = torch.device("cpu"), side // 2
    radius = _radius(side, cpu)
    ring = radius.round().clamp_max(rings).to(torch.int32)
    counts = torch.bincount(ring.flatten(), minlength=rings)[:rings].float()
    return native_structure.Places(*(item.numpy() for item in (radius, ring, counts, _areas(side, cpu))))


@constant
def _radius(side: int, device: torch.device) -> Tensor:
    """(side, side) pixels from the middle."""
    axis = torch.arange(side, dtype=torch.float32, device=device) - side // 2
    return torch.hypot(axis[:, None], axis)


@constant
def _rings(side: int, device: torch.device) -> Tensor:
    """(side², rings) membership of rings one pixel wide, divided by their pixels."""
    number = _radius(side, device).round().long().flatten()
    member = (number[:, None] == torch.arange(side // 2, device=device)).float()
    return member / member.sum(0)


@constant
def _areas(side: int, device: torch.device) -> Tensor:
    """(rings,) areas of the rings of `_rings`, pixels."""
    ring = torch.arange(side // 2, device=device, dtype=torch.float32)
    return math.pi * ((ring + 0.5).square() - (ring - 0.5).clamp_min(0).square())


def _box(image: Tensor, side: int) -> Tensor:
    """Means of side x side pixels of images (n, s, s), 0 beyond the edge."""
    half, n = side // 2, image.shape[-1]
    padded = functional.pad(image, (half,) * 4)
    rows = padded[:, :n].clone()
    for k in range(1, side):
        rows += padded[:, k : k + n]
    found = rows[..., :n].clone()
    for k in range(1, side):
        found += rows[..., k : k + n]
    return found.div_(side * side)


def _highest(image: Tensor) -> Tensor:
    """Largest of the 3 x 3 pixels about each of images (n, s, s); torch's own pooling takes five times as long."""
    padded = functional.pad(image, (1,) * 4, value=-torch.inf)
    rows = torch.maximum(torch.maximum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    return torch.maximum(torch.maximum(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:])


def _border_noise(light: Tensor) -> Tensor:
    """(n,) Gaussian width of the outermost pixels, at least a tenth of the unit."""
    width = 3
    parts = (light[:, :width], light[:, -width:], light[:, width:-width, :width], light[:, width:-width, -width:])
    border = torch.cat([part.flatten(1) for part in parts], dim=1)
    offset = (border - lower_median(border)[:, None]).abs()
    return (lower_median(offset) * _SIGMA_OF_MAD).clamp_min(0.1)


def _turned(light: Tensor) -> Tensor:
    """Images (n, s, s) turned by half about the centre, in half pixels, that makes their middle most alike."""
    side, count = light.shape[-1], 2 * _REACH + 1
    half = min(_CORE, side - 2 * _REACH - 1 + side % 2) // 2
    middle = side // 2
    core = light[:, middle - half : middle + half + 1, middle - half : middle + half + 1]
    flipped = functional.pad(light.flip((1, 2)), (_REACH,) * 4)
    start = middle - half
    windows = flipped[:, start : start + 2 * half + 1 + 2 * _REACH, start : start + 2 * half + 1 + 2 * _REACH]
    best = _distances(core, windows, count).argmin(1)
    dy, dx = best // count, best % count
    rows = torch.arange(side, device=light.device)
    taken = flipped.gather(1, (dy[:, None] + rows)[:, :, None].expand(-1, -1, flipped.shape[2]))
    return taken.gather(2, (dx[:, None] + rows)[:, None, :].expand(-1, side, -1))


def _distances(core: Tensor, windows: Tensor, count: int) -> Tensor:
    """(n, count²) sums of |core - window| of images (n, k, k) at `count` places along each axis of larger ones."""
    side = core.shape[-1]
    if is_traced():  # in words that every runtime knows
        places = [(y, x) for y in range(count) for x in range(count)]
        each = [(core - windows[:, y : y + side, x : x + side]).abs().sum((1, 2)) for y, x in places]
        return torch.stack(each, dim=1)
    seen = windows.unfold(1, side, 1).unfold(2, side, 1).reshape(core.shape[0], count * count, side**2)
    return torch.cdist(core.reshape(core.shape[0], 1, side**2), seen, p=1.0)[:, 0]


def _sizes(both: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """1.5 Petrosian radii (n,) in pixels, lg of the half-light radius, and the light within, of images (n, s, s)."""
    member, area = (made(both.shape[-1], both.device) for made in (_rings, _areas))
    mean = both.flatten(1) @ member
    grown = (mean * area).cumsum(1)
    inside = grown / area.cumsum(0)
    low = mean < _PETROSIAN * inside
    low[:, :2] = False
    last = mean.shape[1]
    place = torch.where(low.any(1), low.float().argmax(1), last - 1)
    above, below = _at(mean / inside, place - 1), _at(mean / inside, place)
    petrosian = place - 1 + ((above - _PETROSIAN) / (above - below).clamp_min(1e-6)).clamp(0, 1)
    edge = (1.5 * (petrosian + 0.5)).clamp(3.0, last - 1.0)
    total = _at(grown, edge.round().long()).clamp_min(1e-6)
    reached = grown >= 0.5 * total[:, None]
    ring = torch.where(reached.any(1), reached.float().argmax(1), 0)
    high = _at(grown, ring)
    before = torch.where(ring > 0, _at(grown, (ring - 1).clamp_min(0)), 0.0)
    step = ((0.5 * total - before) / (high - before).clamp_min(1e-6)).clamp(0, 1)
    half = torch.where(ring > 0, ring - 0.5 + step, 0.5 * step.sqrt())
    return edge, half.clamp_min(0.3).log10(), total


def _at(values: Tensor, place: Tensor) -> Tensor:
    return values.gather(1, place[:, None])[:, 0]


def _second_source(light: Tensor, wide: Tensor, noise: Tensor, radius: Tensor, edge: Tensor) -> Tensor:
    """(n,) mean of 5 x 5 pixels about the brightest other peak, fading beyond the object's edge."""
    smooth = _box(light, 3)
    peak = (smooth >= _highest(smooth)) & (smooth > 2 * noise[:, None, None]) & (radius > _NEAREST)
    fading = 1 / (1 + (radius / (1.5 * edge[:, None, None])).square().square())
    return torch.where(peak, wide * fading, 0.0).amax((1, 2)).clamp_min(0)


def _residual(light: Tensor, both: Tensor, noise: Tensor, radius: Tensor, edge: Tensor) -> Tensor:
    """(n,) brightest mean of 5 x 5 pixels of light without a partner, near the object, less what noise gives."""
    alone = _box(light - both, 5)
    near = radius <= 1.33 * edge[:, None, None]
    return (torch.where(near, alone, -torch.inf).amax((1, 2)) - noise).clamp_min(0)


@constant
def _strips(side: int, device: torch.device) -> Tensor:
    """(side², strips) strips one pixel wide in `_ANGLES` directions, each of unit noise; short ones left out."""
    axis = torch.arange(side, dtype=torch.float32) - side // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    outside = (torch.hypot(x, y) > _INNER / 2).float()
    columns = []
    for number in range(_ANGLES):
        angle = math.pi * number / _ANGLES
        across = x * math.sin(angle) - y * math.cos(angle)
        for offset in range(-(side // 2) + 2, side // 2 - 1):
            strip = (1 - (across - offset).abs()).clamp_min(0) * outside
            if float(strip.sum()) > 0.5 * side:
                columns.append(strip.flatten() / strip.square().sum().sqrt())
    return torch.stack(columns, dim=1).to(device)


def _line(light: Tensor, noise: Tensor) -> Tensor:
    """(n,) highest significance of a strip, on pixels of twice the size."""
    clipped = (doubled(light) / (noise / 3)[:, None, None]).clamp(-_CLIPPED, _CLIPPED)
    return (clipped.flatten(1) @ _strips(clipped.shape[-1], light.device)).amax(1)


def _sharpness(pixels: Tensor) -> Tensor:
    """(n,) largest excess of a pixel over `_SHARP` times the mean of its neighbours."""
    inner = pixels[..., 1:-1, 1:-1]
    rows = pixels[..., :-2, :] + pixels[..., 1:-1, :] + pixels[..., 2:, :]
    around = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] - inner).clamp_min_(0)
    return torch.sub(inner, around, alpha=_SHARP / 8).amax((1, 2, 3))


def _plateau(pixels: Tensor) -> Tensor:
    """(n,) lg of 1 + further pixels of the highest value, most of any band; 0 for faint stamps."""
    flat = pixels.flatten(2)
    highest = flat.amax(2, keepdim=True)
    count = ((flat == highest).to(flat.dtype).sum(2) - 1) * (highest[..., 0] > 20)
    return count.amax(1).add(1).log10()
