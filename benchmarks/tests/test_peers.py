"""Programs of peers: how they are spoken to, that a missing one is a sentence, and that both stretches are the same."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

from astroml_plugin.tasks.normalisation import Normalisation
from benchmarks import environments, peer_arms
from benchmarks.environments import Peer, PeerMissingError
from benchmarks.inside.stretch import stretched


def test_the_stretch_of_peers_is_ours() -> None:
    image = np.random.default_rng(1).normal(5, 3, (8, 3, 64, 64)).astype(np.float32)
    whole = torch.from_numpy(image)
    wanted, _ = Normalisation(unit="noise", stretch="asinh").apply(
        whole, None, torch.ones_like(whole, dtype=torch.bool)
    )
    np.testing.assert_allclose(np.stack([stretched(stamp) for stamp in image]), wanted.numpy(), rtol=1e-5, atol=1e-5)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every environment is this Python, and programs are looked for in a folder of the test."""
    package = tmp_path / "benchmarks" / "inside"
    package.mkdir(parents=True)
    serving = (Path(environments.__file__).parent / "inside" / "serving.py").read_text()
    (package / "serving.py").write_text(serving)
    head = "from benchmarks.inside.serving import serve\n"
    (package / "adds.py").write_text(
        f"{head}def prepare(told):\n    print('noise')\n"
        "    return lambda: {'seconds': 2.0, 'sum': sum(told['terms'])}\n"
        "serve(lambda: None, prepare)\n"
    )
    (package / "breaks.py").write_text(f"{head}serve(lambda: None, lambda told: 1 / 0)\n")
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    monkeypatch.setattr(environments, "interpreter", lambda name: Path(sys.executable))


@pytest.mark.usefixtures("program")
def test_a_program_answers_once_for_each_call() -> None:
    with Peer("any", "adds", {"terms": [1, 2]}, cores=1) as peer:
        assert set(peer.ready) == {"import", "load"}
        assert peer() == peer() == {"seconds": 2.0, "sum": 3}
    assert peer.process.returncode == 0


@pytest.mark.usefixtures("program")
def test_a_program_that_breaks_says_why() -> None:
    with pytest.raises(PeerMissingError, match="any stopped: ZeroDivisionError: division by zero"):
        Peer("any", "breaks", {}, cores=1)


def test_missing_peers_are_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Path:
        raise PeerMissingError(f"{name} cannot be installed: no network")

    np.save(tmp_path / "stamps.npy", np.zeros((4, 3, 8, 8), np.float32))
    monkeypatch.setenv("ASTROML_BENCH", str(tmp_path))
    monkeypatch.setattr(environments, "interpreter", refuse)
    monkeypatch.setattr(peer_arms, "mapped", lambda store: str(tmp_path / "stamps.npy"))
    monkeypatch.setattr(peer_arms, "traced", lambda *_: "network.pt")
    with ExitStack() as stack:
        arms, ready, missing = peer_arms.peer_arms(stack, "store", "bundle", 2)
    assert (arms, ready) == ({}, {})
    assert "hyrax: hyrax cannot be installed: no network." in missing
