"""Every message that the troubleshooting page quotes is one that the code still gives."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
MESSAGES = re.findall(r"^`(.+)`\n: ", PAGE, re.MULTILINE)


def test_messages_are_quoted() -> None:
    assert len(MESSAGES) > 20


@pytest.mark.parametrize("message", MESSAGES)
def test_a_quoted_message_is_in_the_code(message: str) -> None:
    parts = [part.strip(" :;,.()") for part in message.split("…")]
    parts = [part for part in parts if part]
    assert any(len(part) > 12 for part in parts), "quote more words of it"
    assert all(any(part in text for text in _texts()) for part in parts), message


def test_another_message_is_not_in_the_code() -> None:
    assert not any("a Survey needs objects to weigh" in text for text in _texts())


@cache
def _texts() -> frozenset[str]:
    """Every text of the code, what is put into it left out."""
    return frozenset(
        text
        for package in ("astroml_plugin", "workflows")
        for file in (ROOT / package).rglob("*.py")
        for text in _texts_of(ast.parse(file.read_text()))
    )


def _texts_of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
