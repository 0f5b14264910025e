"""The U-Net: maps move with the image, nothing is seen from farther than it says."""

import pytest
import torch

from astroml_plugin.networks.folding import fuse
from astroml_plugin.networks.unet import UNet


def network(**changes) -> UNet:
    torch.manual_seed(1)
    built = UNet(2, 3, widths=(8, 8, 16), head=8, **changes).eval()
    for module in built.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return built


def test_maps_have_the_resolution_of_the_image_and_fused_are_the_same() -> None:
    net, image = network(), torch.randn(2, 2, 64, 96)
    found = net(image)
    assert found.shape == (2, 3, 64, 96)
    torch.testing.assert_close(fuse(net)(image), found, rtol=1e-4, atol=1e-4)


def test_nothing_is_seen_from_beyond_the_radius() -> None:
    net = network(activation="silu")
    side = 2 * net.stride * (net.radius // net.stride + 3)
    seen = 0
    for place in range(side // 2, side // 2 + net.stride):
        image = torch.zeros(1, 2, side, side, requires_grad=True)
        net(image)[0, :, place, place].sum().backward()
        rows = torch.nonzero(image.grad[0].abs().amax((0, 1))).flatten()
        seen = max(seen, int((rows - place).abs().max()))
    assert net.radius - 10 <= seen <= net.radius


def test_maps_move_by_whole_strides() -> None:
    net, image = network(), torch.randn(1, 2, 192, 192)
    whole, part = net(image), net(image[..., net.stride :, 2 * net.stride :])
    inner = net.radius
    there = whole[..., net.stride + inner : -inner, 2 * net.stride + inner : -inner]
    torch.testing.assert_close(part[..., inner:-inner, inner:-inner], there, rtol=1e-4, atol=1e-4)


def test_a_psf_or_missing_depths_are_refused() -> None:
    with pytest.raises(ValueError, match="no PSF"):
        UNet(2, 3, psf=True)
    with pytest.raises(ValueError, match="2 widths"):
        UNet(2, 3, widths=(8, 8))
