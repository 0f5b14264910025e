"""Any image backbone of timm (PyTorch Image Models) by its name, with a head of our own."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from astroml_plugin.core.errors import InputError
from astroml_plugin.networks.layers import PSF_FEATURES, check_fraction, psf_branch, with_psf


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
        options: further plain arguments of timm.create_model, such as img_size of a transformer.

    Raises:
        InputError: timm is not installed, or knows no such backbone.
        ValueError: a dropout that is no fraction.
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
        return self.head(self.dropout(with_psf(self.backbone(image), self.psf_features, psf)))


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise InputError(
            f"the network timm needs the package timm ({error}): install it (pip install timm) or choose another "
            f"network, such as residual_cnn"
        ) from None
    return timm
