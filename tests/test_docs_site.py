"""The site holds together: every page can be reached, every link inside leads somewhere, and Sphinx builds it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(file for pattern in ("*.md", "tutorials/*.md", "tutorials/*.ipynb") for file in DOCS.glob(pattern))
LINKING = [
    *(page for page in PAGES if page.suffix == ".md"),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "deploy/README.md")),
]


def test_every_page_is_in_one_table_of_contents() -> None:
    listed = [entry for page in PAGES if page.suffix == ".md" for entry in _contents(page)]
    pages = {str(page.relative_to(DOCS).with_suffix("")) for page in PAGES} - {"index"}
    missing = pages - set(listed)
    assert not missing, "name these in the toctree of docs/analyst.md, engineer.md, operator.md or project.md"
    assert set(listed) - pages == {"generated/reference"}, "these pages are not there"
    assert not pages & {"search", "genindex"}, "Sphinx has pages of these names"
    assert len(listed) == len(set(listed)), "a page is listed twice"


def test_a_pattern_without_pages_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```{toctree}\n:glob:\n\ngone*\n```\n")
    with pytest.raises(AssertionError, match=r"no page is named gone\*"):
        list(_contents(page))


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_lead_somewhere(page: Path) -> None:
    wrong = [target for target in _links(page) if not _leads_somewhere(page, target)]
    assert not wrong


def test_wrong_links_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A title: of `x`\n```\n[no](link.md)\n```\n[1](#a-title-of-x) [2](#gone) [3](page.md#gone) [4](no.md)"
    )
    assert [target for target in _links(page) if not _leads_somewhere(page, target)] == [
        "#gone",
        "page.md#gone",
        "no.md",
    ]


@pytest.mark.slow
@pytest.mark.timeout(1600)
@pytest.mark.skipif(importlib.util.find_spec("myst_nb") is None, reason="needs the extra docs")
def test_the_site_is_built_without_warnings(tmp_path: Path) -> None:
    site = tmp_path / "html"
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-d",
        str(tmp_path / "trees"),
        "docs",
        str(site),
    ]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=1500)
    assert made.returncode == 0, made.stderr
    import astroml_plugin

    for name in set(astroml_plugin.__all__) - {"__version__"}:
        assert name in (site / "generated" / f"astroml_plugin.{name}.html").read_text()
    assert "Measure every object of a source" in (site / "generated" / "workflows.infer.infer.html").read_text()
    fetched = re.findall(r'<(?:script|link)[^>]+(?:src|href)="(https?:[^"]+)', (site / "index.html").read_text())
    assert not fetched, "a page fetches these when it is opened"


def _contents(page: Path) -> Iterator[str]:
    """Pages that the tables of contents of a page name, patterns written out."""
    for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.DOTALL):
        for entry in re.findall(r"^(?!:)(?:.* <)?([^\s<>]+)>?$", block, re.MULTILINE):
            files = list(page.parent.glob(f"{entry}.md")) if entry.endswith("*") else [page.parent / entry]
            assert files, f"{page.name}: no page is named {entry}, of which Sphinx warns"
            yield from sorted(str(file.relative_to(DOCS).with_suffix("")) for file in files)


def _links(page: Path) -> list[str]:
    """Targets of the links of a Markdown page, without those to other hosts."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    return re.findall(r"\]\((?!\w+:)([^)\s]+)\)", text)


def _leads_somewhere(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    return file.exists() and (not anchor or anchor in _anchors(file))


def _anchors(file: Path) -> set[str]:
    """Anchors that the headings of a Markdown page have, as on GitHub and on the site."""
    text = re.sub(r"^```.*?^```", "", file.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"<[^>]+>", "", heading).lower()).replace(" ", "-") for heading in headings}
