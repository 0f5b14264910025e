"""Networks made ready for inference: batch normalisation folded into convolutions, activations in place."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from torch import fx, nn

from astroml_plugin.networks.layers import PointConvolution, Residual
from astroml_plugin.networks.polar_cnn import RingConvolution


def fuse(network: nn.Module) -> nn.Module:
    """Fold each batch normalisation into the convolution before it, in place, for inference without gradients.

    Only plain `Conv2d` (and our own like it) and `BatchNorm2d` are folded: a subclass of others, a hook or a
    parametrisation may do more. A layer with a method `folded` (such as `SymmetricConvolution`) says itself what it
    becomes. Activations in an `nn.Sequential` write over what the layer before them made: nobody may call its layers
    one by one. Same function up to float32 rounding, fewer memory passes on CPUs. The network must be in eval mode.
    Whether it is the same function, the caller checks (`ModelBundle.network`): code may read a layer's weights.
    """
    held = Counter(id(module) for _, module in network.named_modules(remove_duplicate=False))
    for module in network.modules():
        if _is_chain(module):
            _fuse_chain(module, held)
    if any(type(module) is nn.BatchNorm2d for module in network.modules()):
        _fuse_flow(network)
    _activate_in_place(network, held)
    return network


_LINEAR = (PointConvolution, RingConvolution)
"""Our own convolutions whose answer is linear in weight and bias, as that of `Conv2d`: folding holds for them too."""

_FRESH = (nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AvgPool2d)
"""Layers whose answer is a tensor of its own."""


def _is_chain(module: nn.Module) -> bool:
    """Whether a module calls its layers one after the other and does nothing else."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _has_hooks(module: nn.Module) -> bool:
    """Whether code of others runs when the module is called; spectral and weight norm of older kind are such hooks."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _folded(convolution: nn.Module, norm: nn.Module) -> nn.Module | None:
    """One convolution in place of both; None where it might be another function."""
    if not isinstance(convolution, nn.Conv2d) or type(convolution) not in (nn.Conv2d, *_LINEAR):
        return None
    if not isinstance(norm, nn.BatchNorm2d) or type(norm) is not nn.BatchNorm2d or norm.running_mean is None:
        return None
    if _has_hooks(convolution) or _has_hooks(norm):
        return None
    return nn.utils.fusion.fuse_conv_bn_eval(convolution, norm)


def _activate_in_place(network: nn.Module, held: Counter[int]) -> None:
    """Let activations that directly follow such a layer, or a residual sum, write over their input.

    One that the network holds under several names may be called elsewhere, on what others read: it stays as it is.
    """
    for module in network.modules():
        followers: list[nn.Module] = []
        if isinstance(module, Residual):
            followers = [module.act]
        elif _is_chain(module):
            layers = [layer for layer in module.children() if type(layer) is not nn.Identity]
            followers = [
                layer for before, layer in pairwise(layers) if isinstance(before, _FRESH) and not _has_hooks(before)
            ]
        for layer in followers:
            if held[id(layer)] <= 1 and isinstance(layer, nn.ReLU | nn.LeakyReLU | nn.ELU | nn.SiLU):
                layer.inplace = True


def _fuse_chain(chain: nn.Module, held: Counter[int]) -> None:
    assert isinstance(chain, nn.Sequential)
    for index, layer in enumerate(chain):
        folded = getattr(layer, "folded", None)
        if callable(folded):
            chain[index] = folded()
    for index in range(len(chain) - 1):
        convolution, norm = chain[index], chain[index + 1]
        alone = held[id(convolution)] <= 1 and held[id(norm)] <= 1
        if alone and (one := _folded(convolution, norm)) is not None:
            chain[index], chain[index + 1] = one, nn.Identity()


def _fuse_flow(network: nn.Module) -> None:
    """Fold pairs that a forward method joins, as in backbones of timm: found by following the data."""
    try:
        graph = fx.symbolic_trace(network).graph
    except Exception:  # noqa: BLE001 - a forward that looks at its data: it runs as it is
        return
    modules = dict(network.named_modules())
    calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    for node in graph.nodes:
        before = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        names = str(before.target), str(node.target)
        convolution, norm = (modules[name] for name in names)
        alone = len(before.users) == 1 and all(calls.count(name) == 1 and name not in read for name in names)
        if alone and (one := _folded(convolution, norm)) is not None:
            network.set_submodule(names[0], one)
            network.set_submodule(names[1], nn.Identity())
