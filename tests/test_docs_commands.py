"""Commands and recipes on the pages are ones that the package takes; figures of the course stand in the results."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from astroml_plugin.training.recipe import Recipe
from workflows import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COURSE = (ROOT / "docs" / "course.md").read_text()
PLACEHOLDERS = re.compile(r"[…{}$]|\bVERB\b")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_taken(page: Path) -> None:
    for command in _commands(page.read_text()):
        _parse(command)


def test_a_wrong_command_is_seen() -> None:
    (command,) = _commands("```bash\nastroml-plugin infer x --bundel y --out z  # no\n```")
    with pytest.raises(SystemExit):
        _parse(command)


def test_recipes_of_the_course_are_taken() -> None:
    tables: dict[str, object] = {"task": "classify", "network": "strided_cnn"}
    blocks = re.findall(r"```toml\n(.*?)```", COURSE, re.DOTALL)
    assert len(blocks) > 4
    for block in blocks:
        tables |= {"task": "anomaly" if "anogan" in block else "classify"} | tomllib.loads(block)
        Recipe.from_mapping(tables if "network_arguments" in tomllib.loads(block) else _bare(tables)).build_task()


def test_figures_of_the_course_are_measured() -> None:
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    measured = re.findall(r"^\|.*\|$|^Measured.*?(?=\n\n)", COURSE, re.MULTILINE | re.DOTALL)
    figures = {figure for text in measured for figure in re.findall(r"(?<![\w.])-?\d+\.\d+", text)}
    assert len(figures) > 30
    assert [figure for figure in sorted(figures) if figure not in results and figure != "68.3"] == []


def _bare(tables: dict[str, object]) -> dict[str, object]:
    """A recipe without arguments of its network: those of an earlier block may be of another one."""
    return {name: value for name, value in tables.items() if name != "network_arguments"}


def _commands(text: str) -> Iterator[list[str]]:
    """Words after `astroml-plugin` of each command in blocks of code, those without placeholders."""
    for block in re.findall(r"```(?:bash|sh|)\n(.*?)```", text, re.DOTALL):
        for found in re.finditer(
            r"^(?:\$ )?astroml-plugin ((?:[^\n\"'\\]|\"[^\"]*\"|'[^']*'|\\\n)+)", block, re.MULTILINE
        ):
            if not PLACEHOLDERS.search(found[1]) and found[1] != "--version":
                yield shlex.split(found[1].replace("\\\n", " "), comments=True)


def _parse(words: list[str]) -> None:
    cli._parsed(cli._parser(), words)
