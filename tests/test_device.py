"""What runs a network on a device: the same numbers however batches are copied, padded, compiled or overlapped."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from astroml_plugin import cutouts as cut
from astroml_plugin.compute import device as dev
from astroml_plugin.compute import forward as forward_module
from astroml_plugin.compute.device import AHEAD, Copier, pipelined, place_network
from astroml_plugin.compute.forward import SIZES, Forward, padded, padded_rows
from astroml_plugin.compute.memory import (
    LARGEST_BATCH,
    activation_bytes,
    fitting_batch,
    is_out_of_memory,
    stamps_per_forward,
)
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import MaskBit
from astroml_plugin.cutouts import device_bits
from astroml_plugin.networks.residual_cnn import ResidualCNN
from astroml_plugin.pixels import Tile, pixel_bits


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(1), nn.LazyLinear(3)).eval()


def stamps(count: int) -> Tensor:
    return torch.randn(count, 2, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("chunk", [64, 1000, 1 << 20])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int32", "float64"])
def test_arrays_arrive_as_they_are_whatever_the_buffer(chunk: int, dtype: str) -> None:
    array = (100 * np.random.default_rng(0).normal(size=(5, 7, 11))).astype(dtype)
    copier = Copier("cpu", chunk)
    frozen = array.copy()
    frozen.flags.writeable = False
    for sent in (array, array[:, ::2], array[:0], np.asfortranarray(array), frozen):
        arrived = copier(sent)
        assert arrived.shape == sent.shape
        np.testing.assert_array_equal(arrived.numpy(), sent)
        assert arrived.numpy().dtype == sent.dtype
    assert copier.bytes == 3 * array.nbytes + array[:, ::2].nbytes


def test_what_arrived_stays_when_the_buffers_are_used_again() -> None:
    copier = Copier("cpu", 128)
    first = copier(np.full(1000, 1, np.float32))
    copier(np.full(1000, 2, np.float32))
    assert bool((first == 1).all())


def test_several_threads_may_copy() -> None:
    copier, arrived = Copier("cpu", 256), {}

    def send(value: int) -> None:
        arrived[value] = copier(np.full(5000, value, np.int32))

    threads = [threading.Thread(target=send, args=(value,)) for value in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(bool((arrived[value] == value).all()) for value in range(8))


def bad_pixels() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    image = rng.normal(size=(2, 40, 40)).astype(np.float32)
    variance = np.ones_like(image)
    image[rng.random(image.shape) < 0.1] = np.nan
    image[0, 0, :2] = np.inf, -np.inf
    variance[0, 1, :4] = 0, -1, np.nan, np.inf
    bits = np.array([0, *(int(bit) for bit in MaskBit)], np.uint32)
    return image, variance, rng.choice(bits, image.shape)


@pytest.mark.parametrize("without", ["nothing", "variance", "mask"])
def test_bad_pixels_are_marked_alike_on_the_device(without: str) -> None:
    image, variance, mask = bad_pixels()
    spread, bits = None if without == "variance" else variance, None if without == "mask" else mask
    found = device_bits(
        torch.from_numpy(image),
        None if spread is None else torch.from_numpy(spread),
        None if bits is None else torch.from_numpy(bits.view(np.int32)),
    )
    assert found is not None
    np.testing.assert_array_equal(found.numpy(), pixel_bits(image, spread, bits))


def test_a_clean_tile_has_no_bits_on_the_device() -> None:
    clean = torch.ones(2, 8, 8)
    assert device_bits(clean, clean, torch.full((2, 8, 8), int(MaskBit.DETECTED), dtype=torch.int32)) is None
    assert device_bits(torch.zeros(2, 8, 8, dtype=torch.uint8), None, None) is None


def test_a_tile_that_was_copied_gives_the_same_stamps() -> None:
    image, variance, mask = bad_pixels()
    tile = Tile(image, variance, mask, np.ones((2, 1, 1, 5, 5), np.float32))
    x, y, jacobian = np.array([10.2, 30.0]), np.array([20.0, 11.7]), np.full((2, 2, 2), np.nan)
    plain, copied = (
        cut.around(placed, x, y, 16, origin=(0, 0), jacobian=jacobian)
        for placed in (cut.to_device(tile, "gr"), cut.to_device(tile, "gr", move=Copier("cpu", 999)))
    )
    for name in ("image", "variance", "valid", "psf", "flags"):
        assert torch.equal(getattr(plain, name), getattr(copied, name)), name


def test_stored_stamps_that_were_copied_are_the_same() -> None:
    image, variance, _ = bad_pixels()
    image, variance = image.reshape(2, 2, 20, 40), variance.reshape(2, 2, 20, 40)
    plain, copied = (
        cut.from_stamps(image, variance, None, bands="gr", move=move) for move in (None, Copier("cpu", 999))
    )
    for name in ("image", "variance", "valid", "flags"):
        assert torch.equal(getattr(plain, name), getattr(copied, name)), name


def test_padding_adds_zeros_and_keeps_the_memory_format() -> None:
    image = stamps(3).contiguous(memory_format=torch.channels_last)
    whole = padded(image, 5)
    assert torch.equal(whole[:3], image)
    assert not whole[3:].any()
    assert whole.is_contiguous(memory_format=torch.channels_last)
    assert padded(image, 3) is image


def test_a_batch_of_any_size_is_the_networks_own_answer() -> None:
    net, image = network(), stamps(4)
    with torch.inference_mode():
        expected = net(image)
    assert torch.equal(Forward(net, "cpu")([image], 4), expected)
    assert torch.equal(Forward(net, "cpu")([image], 128), expected)
    assert len(Forward(net, "cpu", compiling="always")([image[:0]], 128)) == 0


def test_half_precision_is_close_and_not_the_same() -> None:
    net, image = network(), stamps(16)
    exact = Forward(net, "cpu")([image], 16)
    half = Forward(net, "cpu", dtype=torch.bfloat16)([image], 16).float()
    assert not torch.equal(half, exact)
    torch.testing.assert_close(half, exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("first", [2048, 1024, 100, 32, 3, 1])
def test_batches_are_padded_to_few_sizes_and_little(first: int) -> None:
    batches = [first, *(first // 2**k for k in range(1, 4) if first >= 2**k)]
    found = {(count, batch): padded_rows(count, batch, first) for batch in batches for count in range(1, batch + 1)}
    assert all(count <= rows <= batch for (count, batch), rows in found.items())
    assert len({*found.values()}) <= 10
    assert len({rows for (_, batch), rows in found.items() if batch == first}) <= SIZES + 1
    assert all(rows <= max(2 * count, first // 32) for (count, _), rows in found.items())
    assert found[1, first] == 1 << max(0, (first // 32).bit_length() - 1)


class Compiler:
    """Takes the place of `torch.compile`: notes the shapes that it is given, and calls the network."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.rows: list[int] = []
        self.error = error
        monkeypatch.setattr(torch, "compile", self)

    def __call__(self, given: nn.Module, *, dynamic: bool) -> object:
        assert dynamic is False

        def call(image: Tensor) -> Tensor:
            if self.error is not None:
                raise self.error
            self.rows.append(len(image))
            answer: Tensor = given(image)
            return answer

        return call


def test_a_compiled_network_sees_few_shapes_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    net, compiler = network(), Compiler(monkeypatch)
    forward = Forward(net, "cpu", compiling="always", dtype=torch.bfloat16)
    eager = Forward(net, "cpu", dtype=torch.bfloat16)
    for count in (64, 3, 60, 33, 5):
        assert torch.equal(forward([stamps(count)], 64), eager([stamps(count)], 64))
    assert compiler.rows == [64, 4, 64, 64, 8]  # half precision: every batch, or rows would be of two kinds
    assert forward.form == "torch.compile bfloat16"


def test_in_float32_what_would_grow_by_more_than_a_third_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    net, compiler = network(), Compiler(monkeypatch)
    forward = Forward(net, "cpu")
    forward.compile_after = 0  # as on CUDA, later
    for count in (64, 60, 33, 12, 9):
        torch.testing.assert_close(forward([stamps(count)], 64), Forward(net, "cpu")([stamps(count)], 64))
    assert compiler.rows == [64, 64, 16]


def test_compiling_waits_until_there_is_work(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler(monkeypatch)
    forward = Forward(network(), "cpu")
    for _ in range(3):
        forward([stamps(2)], 2)
    assert forward.compile_after == float("inf")
    forward.compile_after = 5  # as on CUDA, where it is COMPILE_AFTER
    for _ in range(3):
        forward([stamps(1)], 2)  # half a batch of work each
    forward([stamps(2)], 2)
    assert compiler.rows == []
    forward([stamps(2)], 2)
    assert compiler.rows == [2]


def test_half_precision_is_compiled_when_it_is_asked_for_alone() -> None:
    assert Forward(network(), "cuda").compile_after == forward_module.COMPILE_AFTER
    assert Forward(network(), "cuda", dtype=torch.bfloat16).compile_after == float("inf")
    assert Forward(network(), "cuda", dtype=torch.bfloat16, compiling="always").compile_after == 0


def test_in_half_precision_what_cannot_be_compiled_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Compiler(monkeypatch, RuntimeError("no C compiler here\nand more"))
    forward = Forward(network(), "cpu", compiling="always", dtype=torch.bfloat16)
    for _ in range(2):
        with pytest.raises(InputError, match=r"no C compiler here\), and rows .* begin another catalog with --compile"):
            forward([stamps(5)], 8)


@pytest.mark.parametrize("said", ["CUBLAS_STATUS_ALLOC_FAILED when calling", "CUDA error: out of memory"])
def test_without_memory_a_network_is_not_taken_for_one_that_cannot_be_compiled(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Compiler(monkeypatch, RuntimeError(said))
    forward = Forward(network(), "cpu", compiling="always")
    with pytest.raises(RuntimeError, match=said[:12]):
        forward([stamps(5)], 8)
    assert forward.compile_after == 0
    assert is_out_of_memory(RuntimeError(said))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA"))
    assert not is_out_of_memory(RuntimeError("CUDNN_STATUS_BAD_PARAM"))
    assert not is_out_of_memory(ValueError(said))


def test_what_cannot_be_compiled_runs_eager_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(given: nn.Module, dynamic: bool) -> object:
        def call(image: Tensor) -> Tensor:
            raise RuntimeError("no C compiler here\nand more")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    net = network()
    forward = Forward(net, "cpu", compiling="always")
    with pytest.warns(RuntimeWarning, match="no C compiler here\\): runs eager"):
        first = forward([stamps(5)], 8)
    second = forward([stamps(5)], 8)  # a second warning would be an error
    expected = Forward(net, "cpu")([stamps(5)], 8)
    assert torch.equal(first, expected)
    assert torch.equal(second, expected)


def test_what_float16_has_no_room_for_is_calculated_in_float32() -> None:
    class Square(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return (image @ torch.full((4, 2), 300.0)) ** 2

    image = torch.tensor([[0.1] * 4, [1.0] * 4, [0.2] * 4])
    answers = Forward(Square(), "cpu", dtype=torch.float16)([image], 3)
    assert answers.dtype == torch.float32
    torch.testing.assert_close(answers, Square()(image), rtol=5e-3, atol=0)
    assert answers[1, 0] == 1200.0**2  # beyond 65504


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
def test_torch_compiles_a_residual_network() -> None:
    torch.manual_seed(0)
    net = ResidualCNN(2, 3, widths=(8, 16)).eval()
    forward = Forward(net, "cpu", compiling="always")
    for count in (8, 3):
        torch.testing.assert_close(
            forward([stamps(count)], 8), Forward(net, "cpu")([stamps(count)], 8), rtol=1e-4, atol=1e-5
        )
    assert forward.form == "torch.compile float32"


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_every_batch_is_finished_once_and_in_order(overlap: bool, count: int) -> None:
    done = pipelined(
        iter(range(count)), lambda item: 10 * item, lambda item, out: (item, out), device="cpu", overlap=overlap
    )
    assert done == [(item, 10 * item) for item in range(count)]


def test_overlapped_the_network_stays_on_its_thread_and_few_batches_are_alive() -> None:
    made, finished, threads, most = 0, 0, set(), 0

    def items() -> Iterator[int]:
        nonlocal made
        for item in range(30):
            made += 1
            yield item

    def forward(item: int) -> int:
        nonlocal most
        threads.add(threading.get_ident())
        most = max(most, made - finished)
        return item

    def finish(item: int, output: int) -> int:
        nonlocal finished
        assert torch.is_inference_mode_enabled()
        finished += 1
        return output

    assert pipelined(items(), forward, finish, device="cpu", overlap=True) == list(range(30))
    assert threads == {threading.get_ident()}
    assert most <= 2 * AHEAD + 2


@pytest.mark.parametrize("stage", ["feed", "forward", "finish"])
@pytest.mark.parametrize("overlap", [False, True])
def test_an_error_anywhere_is_the_error_of_the_whole(stage: str, overlap: bool) -> None:
    def fail(at: str, item: int) -> int:
        if at == stage and item == 3:
            raise torch.OutOfMemoryError("none left")
        return item

    with pytest.raises(torch.OutOfMemoryError, match="none left"):
        pipelined(
            (fail("feed", item) for item in range(9)),
            lambda item: fail("forward", item),
            lambda item, _: fail("finish", item),
            device="cpu",
            overlap=overlap,
        )


def test_memory_is_foreseen_to_the_byte_for_a_chain() -> None:
    chain = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 3, padding=1))
    assert activation_bytes(chain, [(1, 16, 16)]) == 16 * 16 * 4 * (1 + 4 + 8)  # image, ReLU, answer


def test_foreseeing_memory_leaves_the_network_as_it_was() -> None:
    net = ResidualCNN(3, 2, psf=True, widths=(8, 16)).eval()
    assert activation_bytes(net, [(3, 32, 32), (3, 15, 15)]) > 4 * 3 * (32**2 + 15**2)
    assert {parameter.device.type for parameter in net.parameters()} == {"cpu"}


def test_batches_follow_the_memory() -> None:
    net = ResidualCNN(3, 2, widths=(8, 16)).eval()
    sizes = [fitting_batch(net, [(3, 64, 64)], budget) for budget in (1, 10**7, 10**8, 10**9, 10**12)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert sizes[-1] == LARGEST_BATCH
    assert all(size & (size - 1) == 0 for size in sizes)


@pytest.mark.parametrize(
    ("shapes", "count"),
    [([(3, 64, 64)], 128), ([(1, 48, 48), (1, 25, 25)], 512), ([(1, 64, 64)], 256), ([(1, 8, 8)], 512), ([], 512)],
)
def test_small_stamps_go_through_a_cpu_in_larger_batches(shapes: list[tuple[int, ...]], count: int) -> None:
    assert stamps_per_forward(nn.Flatten(), shapes, "cpu") == count


def test_a_network_that_must_see_numbers_gets_the_plain_batch() -> None:
    class Counting(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image[image.mean((1, 2, 3)) > 0]

    assert fitting_batch(Counting(), [(1, 8, 8)], 10**9) == dev.PLAIN_BATCH


def test_torch_and_numpy_are_enough() -> None:
    code = (
        "import sys\n"
        "for name in ('dask', 'distributed', 'zarr', 'pyarrow', 'astropy', 'fsspec', 'ray', 'pandas'):\n"
        "    sys.modules[name] = None\n"
        "import astroml_plugin.compute.device, astroml_plugin.cutouts, astroml_plugin.tasks.normalisation\n"
        "from astroml_plugin.networks import strided_cnn, residual_cnn, equivariant_cnn, multipole_mlp\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_copies_arrive_and_batches_overlap() -> None:
    array = np.random.default_rng(0).normal(size=(64, 2, 12, 12)).astype(np.float32)
    copier, net = Copier("cuda", 1 << 12), network()
    with torch.inference_mode():
        expected = net(torch.from_numpy(array))
    forward = Forward(net.to("cuda"), "cuda")
    found = pipelined(
        (copier(array[start : start + 8]) for start in range(0, 64, 8)),
        lambda image: forward([image], 8),
        lambda _, out: out.cpu(),
        device="cuda",
    )
    torch.testing.assert_close(torch.cat(found), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_half_precision_is_close() -> None:
    net = network().to("cuda")
    exact, half = (Forward(net, "cuda", dtype=p)([stamps(16).cuda()], 16).float() for p in (None, torch.bfloat16))
    assert not torch.equal(exact, half)
    torch.testing.assert_close(half, exact, rtol=0.05, atol=0.05)


def test_weights_too_small_for_normal_floats_are_nothing_where_a_network_runs() -> None:
    network = nn.Linear(3, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1e-40, -3e-39, 2e-38]]))
    placed = place_network(network, "cpu")
    assert placed.weight.tolist() == [[0.0, 0.0, pytest.approx(2e-38)]]
