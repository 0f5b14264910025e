"""Networks made ready for inference: batch normalisation folded into convolutions, activations in place."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from torch import fx, nn

from astroml_plugin.networks.layers import Residual


def fuse(network: nn.Module) -> nn.Module:
    """Fold each batch normalisation into the convolution before it, in place, for inference without gradients.

    A layer with a method `folded` (such as `SymmetricConvolution`) says itself what it becomes. Activations in an
    `nn.Sequential` write over what the layer before them made: nobody may call its layers one by one. Same function up
    to float32 rounding, fewer memory passes on CPUs. The network must be in eval mode.
    """
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            _fuse_chain(module)
    if any(type(module) is nn.BatchNorm2d for module in network.modules()):
        _fuse_flow(network)
    _activate_in_place(network)
    return network


_FRESH = (nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AvgPool2d)
"""Layers whose answer is a tensor of its own."""


def _activate_in_place(network: nn.Module) -> None:
    """Let activations that directly follow such a layer, or a residual sum, write over their input.

    One that the network holds under several names may be called elsewhere, on what others read: it stays as it is.
    """
    held = Counter(id(module) for _, module in network.named_modules(remove_duplicate=False))
    for module in network.modules():
        followers: list[nn.Module] = []
        if isinstance(module, Residual):
            followers = [module.act]
        elif isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            layers = [layer for layer in module if type(layer) is not nn.Identity]
            followers = [layer for before, layer in pairwise(layers) if isinstance(before, _FRESH)]
        for layer in followers:
            if held[id(layer)] == 1 and isinstance(layer, nn.ReLU | nn.LeakyReLU | nn.ELU | nn.SiLU):
                layer.inplace = True


def _fuse_chain(chain: nn.Sequential) -> None:
    for index, layer in enumerate(chain):
        if hasattr(layer, "folded"):
            chain[index] = layer.folded()
    for index in range(len(chain) - 1):
        convolution, norm = chain[index], chain[index + 1]
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            chain[index] = nn.utils.fusion.fuse_conv_bn_eval(convolution, norm)
            chain[index + 1] = nn.Identity()


def _fuse_flow(network: nn.Module) -> None:
    """The same where a forward method joins the two, as in backbones of timm: found by following the data."""
    try:
        graph = fx.symbolic_trace(network).graph
    except Exception:  # noqa: BLE001 - a forward that looks at its data: it runs as it is
        return
    modules = dict(network.named_modules())
    calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    for node in graph.nodes:
        before = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        names = str(before.target), str(node.target)
        convolution, norm = (modules[name] for name in names)
        alone = len(before.users) == 1 and all(calls.count(name) == 1 for name in names)
        if type(convolution) is nn.Conv2d and type(norm) is nn.BatchNorm2d and alone:
            network.set_submodule(names[0], nn.utils.fusion.fuse_conv_bn_eval(convolution, norm))
            network.set_submodule(names[1], nn.Identity())
