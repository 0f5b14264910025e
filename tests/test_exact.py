"""Float32 proper whatever a host program has allowed, in either of torch's languages; nothing is left changed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from astroml_plugin.compute.exact import exact_float32
from astroml_plugin.compute.forward import Forward

BACKENDS = torch.backends
pytestmark = pytest.mark.skipif(
    not hasattr(BACKENDS.cudnn, "conv"), reason="this torch has no fp32_precision: one language only"
)


def operators() -> list[Any]:
    cudnn, mkldnn = BACKENDS.cudnn, BACKENDS.mkldnn
    return [cudnn.conv, cudnn.rnn, BACKENDS.cuda.matmul, mkldnn.conv, mkldnn.matmul, mkldnn.rnn]


def told() -> list[Any]:
    """All that torch says about float32, and "refused" where it does not say it."""
    questions: list[Callable[[], Any]] = [
        *(lambda one=one: one.fp32_precision for one in (BACKENDS, BACKENDS.cudnn, BACKENDS.mkldnn, *operators())),
        lambda: BACKENDS.cudnn.allow_tf32,
        lambda: BACKENDS.cuda.matmul.allow_tf32,
        torch.get_float32_matmul_precision,
    ]
    found = []
    for question in questions:
        try:
            found.append(question())
        except RuntimeError:
            found.append("refused")
    return found


def _generic(value: str) -> None:
    BACKENDS.fp32_precision = value


HOSTS: dict[str, Callable[[], Any]] = {
    "says nothing": lambda: None,
    "all ieee": lambda: _generic("ieee"),
    "all tf32": lambda: _generic("tf32"),
    "convolutions ieee": lambda: setattr(BACKENDS.cudnn.conv, "fp32_precision", "ieee"),
    "cudnn tf32": lambda: setattr(BACKENDS.cudnn, "fp32_precision", "tf32"),
    "products tf32": lambda: setattr(BACKENDS.cuda.matmul, "fp32_precision", "tf32"),
    "CPU bf16": lambda: setattr(BACKENDS.mkldnn.matmul, "fp32_precision", "bf16"),
    "old, no tf32": lambda: setattr(BACKENDS.cudnn, "allow_tf32", False),
    "old, products": lambda: setattr(BACKENDS.cuda.matmul, "allow_tf32", True),
    "old, high": lambda: torch.set_float32_matmul_precision("high"),
    "old, medium": lambda: torch.set_float32_matmul_precision("medium"),
}


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    _generic("none")
    BACKENDS.cudnn.fp32_precision = BACKENDS.mkldnn.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    BACKENDS.cudnn.allow_tf32 = True
    for one in operators()[2:]:
        one.fp32_precision = "none"


@pytest.mark.parametrize("host", HOSTS)
def test_inside_it_is_exact_and_after_it_is_as_before(host: str) -> None:
    HOSTS[host]()
    before = told()
    network = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Flatten(1), nn.LazyLinear(3)).eval()
    with exact_float32():
        assert {one.fp32_precision for one in operators()} == {"ieee"}
        network(torch.randn(2, 2, 8, 8))
        nn.LSTM(3, 2)(torch.randn(2, 1, 3))
    assert told() == before


@pytest.mark.parametrize("host", HOSTS)
def test_a_network_runs_for_every_host(host: str) -> None:
    HOSTS[host]()
    before, seen = told(), []

    class Looking(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            seen.append({one.fp32_precision for one in operators()})
            return image

    Forward(Looking(), "cpu")([torch.randn(2, 3)], 2)
    assert seen == [{"ieee"}]
    assert told() == before


def test_the_switches_go_back_when_the_last_thread_has_left() -> None:
    torch.set_float32_matmul_precision("high")
    before, inside, leave = told(), threading.Barrier(2), threading.Event()

    def long() -> None:
        with exact_float32():
            inside.wait(10)
            leave.wait(10)

    thread = threading.Thread(target=long)
    with exact_float32():
        thread.start()
        inside.wait(10)
    assert BACKENDS.cuda.matmul.fp32_precision == "ieee"  # the other thread still calculates
    leave.set()
    thread.join()
    assert told() == before


def test_an_error_inside_leaves_nothing_changed() -> None:
    before = told()
    with pytest.raises(ZeroDivisionError), exact_float32():
        raise ZeroDivisionError
    assert told() == before


def test_training_and_evaluation_are_exact_too() -> None:
    """`fit` and `network_outputs` are wrapped by it: what they call sees the switches."""
    from astroml_plugin.training import adversarial, fit, forward

    torch.set_float32_matmul_precision("high")

    class AskedError(Exception):
        pass

    class Looking:
        def __getattr__(self, name: str) -> Any:
            raise AskedError({one.fp32_precision for one in operators()})

    looking: Any = Looking()
    for function in (
        lambda: fit.fit(looking, looking, looking, looking, looking, looking),
        lambda: forward.network_outputs(looking, looking, looking),
        lambda: adversarial.fit_adversarial(looking, looking, looking, looking, looking),
    ):
        with pytest.raises(AskedError, match=r"^\{'ieee'\}$"):
            function()
