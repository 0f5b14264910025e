"""Any image backbone of timm (PyTorch Image Models) by its name, with a head of our own."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from astroml_plugin.core.errors import InputError
from astroml_plugin.networks.layers import PSF_FEATURES, check_fraction, psf_branch, with_psf

OPTIONS: dict[str, type | tuple[type, ...]] = {
    "act_layer": str,
    "block_size": int,
    "depth": int,
    "drop_path_rate": (int, float),
    "drop_rate": (int, float),
    "dynamic_img_size": bool,
    "embed_dim": int,
    "global_pool": str,
    "img_size": int,
    "norm_layer": str,
    "num_heads": int,
    "output_stride": int,
    "patch_size": int,
    "window_size": int,
}
"""Arguments of timm.create_model that a recipe or a card may set, and their types. A card is data of others: timm loads
files that some of its other arguments name, with code in them."""


class TimmNetwork(nn.Module):
    """Stamps (and optionally their PSFs) to one row of numbers each.

    Args:
        bands: channels of the image; any number.
        outputs: numbers per object.
        psf: whether a PSF (n, bands, py, px) is the second input.
        name: timm's name of the backbone, such as resnet18, convnext_atto or efficientnet_b0.
        pretrained: fetch published weights to start from (from the internet, when training only: a bundle brings its
            own); otherwise the weights are drawn at random and nothing is fetched.
        dropout: fraction of the backbone's features dropped while training.
        options: further arguments of timm.create_model: those of `OPTIONS`, such as img_size of a transformer.

    Raises:
        InputError: timm is not installed, or knows no such backbone.
        ValueError: a dropout that is no fraction; an option that is not one of `OPTIONS`.
    """

    def __init__(
        self,
        bands: int,
        outputs: int,
        *,
        psf: bool = False,
        name: str = "resnet18",
        pretrained: bool = False,
        dropout: float = 0.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_fraction("dropout", dropout)
        _check_options(options or {})
        timm = _timm()
        known = timm.list_models()
        if name.partition(".")[0] not in known:
            near = ", ".join(difflib.get_close_matches(name, known, 3))
            raise InputError(f"timm has no backbone {name!r}: {f'near are {near}' if near else 'see timm.list_models'}")
        self.backbone = timm.create_model(
            name, pretrained=pretrained, in_chans=bands, num_classes=0, **dict(options or {})
        )
        features = getattr(self.backbone, "head_hidden_size", None) or self.backbone.num_features
        self.psf_features = psf_branch(bands, nn.ReLU, True) if psf else None
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features + (PSF_FEATURES if psf else 0), outputs)

    def forward(self, image: Tensor, psf: Tensor | None = None) -> Tensor:
        """(n, outputs) from image (n, bands, h, w) and, where taken, psf (n, bands, py, px) of unit sum."""
        output: Tensor = self.head(self.dropout(with_psf(self.backbone(image), self.psf_features, psf)))
        return output


def _check_options(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name not in OPTIONS:
            raise ValueError(f"option {name!r} cannot be set here: those that can are {', '.join(OPTIONS)}")
        if not isinstance(value, OPTIONS[name]) or (isinstance(value, str) and not value.isidentifier()):
            raise ValueError(f"option {name} cannot be {value!r}")


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise InputError(
            f"the network timm needs the package timm ({error}): install it (pip install timm) or choose another "
            f"network, such as residual_cnn"
        ) from None
    return timm
