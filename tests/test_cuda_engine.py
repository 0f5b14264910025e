"""What only a GPU can answer; the pretended device of test_pretended_cuda.py has no arithmetic of its own."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from astroml_plugin.compute.device import Copier, pipelined, place_network
from astroml_plugin.compute.forward import Forward
from astroml_plugin.compute.memory import activation_bytes, is_out_of_memory, stamps_per_forward
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.places import shipped

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

STAMPS = [name for name in shipped() if name != "segmentation"]


@pytest.mark.parametrize("name", shipped())
def test_float32_is_that_of_a_cpu(name: str) -> None:
    bundle = ModelBundle.load(name)
    inputs = bundle.task().example_inputs()
    expected = Forward(bundle.network(fused=True), "cpu")(inputs, len(inputs[0]))
    network = place_network(bundle.network(fused=True), "cuda")
    found = Forward(network, "cuda", compiling="never")([item.cuda() for item in inputs], len(inputs[0]))
    torch.testing.assert_close(found.cpu(), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("layer", [nn.Conv2d(64, 64, 3), nn.Linear(512, 64)], ids=lambda layer: type(layer).__name__)
def test_float32_has_no_tf32_whatever_the_host_allows(layer: nn.Module) -> None:
    image = torch.randn(64, 64, 8, 8) if isinstance(layer, nn.Conv2d) else torch.randn(64, 512)
    expected = layer.double()(image.double())
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    try:
        found = Forward(layer.float().cuda(), "cuda", compiling="never")([image.cuda()], 64)
    finally:
        torch.set_float32_matmul_precision(before[0])
    assert torch.backends.cudnn.allow_tf32 == before[1]
    assert (found.cpu().double() - expected).abs().max() < 1e-4


def test_pinned_buffers_are_not_filled_too_early() -> None:
    move, found = Copier("cuda", 1 << 16), {}
    arrays = [np.random.default_rng(number).integers(0, 255, 3 << 20, np.uint8) for number in range(24)]

    def send(number: int) -> None:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            found[number] = move(arrays[number])
            stream.synchronize()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[number].cpu().numpy(), array) for number, array in enumerate(arrays))


def test_streams_keep_order_when_memory_is_used_again() -> None:
    """Many small batches of known content: a wrong order shows as another batch's numbers."""
    move = Copier("cuda", 1 << 18)
    network = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).cuda().eval()
    forward = Forward(network, "cuda", compiling="never")

    def items() -> Iterator[Tensor]:
        for number in range(300):
            yield move(np.full((64, 1, 64, 64), number, np.float32)) + 0.0

    with torch.inference_mode():
        expected = [network(torch.full((1, 1, 64, 64), float(number), device="cuda")).cpu() for number in range(300)]
    for _ in range(3):
        found = pipelined(items(), lambda item: forward([item], 64), lambda _, out: out.cpu(), device="cuda")
        for one, two in zip(found, expected, strict=True):
            torch.testing.assert_close(one, two.expand_as(one), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("name", STAMPS)
def test_batches_that_were_foreseen_fit(name: str) -> None:
    bundle = ModelBundle.load(name)
    task, network = bundle.task(), place_network(bundle.network(fused=True), "cuda")
    batch = stamps_per_forward(network, task.input_shapes(), "cuda")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    begun = torch.cuda.memory_allocated()
    inputs = [torch.randn(batch, *shape, device="cuda") for shape in task.input_shapes()]
    Forward(network, "cuda", compiling="never")(inputs, batch)
    torch.cuda.synchronize()
    used = (torch.cuda.max_memory_allocated() - begun) / batch
    assert used < 2 * activation_bytes(network, task.input_shapes())


def test_what_a_full_gpu_raises_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("name", STAMPS)
def test_compiled_it_is_the_same_network_in_one_graph(name: str) -> None:
    bundle = ModelBundle.load(name)
    network = place_network(bundle.network(fused=True), "cuda")
    inputs = [item.cuda() for item in bundle.task().example_inputs(64)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # which would say that it runs eager
        for dtype in (None, torch.bfloat16):
            eager = Forward(network, "cuda", compiling="never", dtype=dtype)(inputs, 64).float()
            compiled = Forward(network, "cuda", compiling="always", dtype=dtype)(inputs, 64).float()
            close = {"rtol": 1e-3, "atol": 1e-3} if dtype is None else {"rtol": 0.1, "atol": 0.1}
            torch.testing.assert_close(compiled, eager, **close)
