"""How Sphinx builds the site: `make docs`. Nothing is fetched while it builds."""

from __future__ import annotations

import re
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

project = "astroml_plugin"
author = "the maintainers of astroml_plugin"
release = installed_version("astroml-plugin").partition("+")[0]
version = release

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "_templates", "**.ipynb_checkpoints"]
templates_path = ["_templates"]

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # tests run the notebooks; their outputs are committed
suppress_warnings = [
    "ref.python",  # `bytes` is a type here, and also a field of two classes
]

default_role = "literal"  # a name in single backticks, as docstrings write it
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autosummary_generate = True
napoleon_numpy_docstring = False
add_module_names = False
python_maximum_signature_line_length = 160

copybutton_prompt_text = "$ "
copybutton_exclude = ".linenos, .gp"

html_theme = "pydata_sphinx_theme"
html_title = "astroml_plugin"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "astroml_plugin"},
    "navbar_align": "left",
    "navbar_persistent": ["search-button"],
    "header_links_before_dropdown": 8,
    "show_toc_level": 2,
    "navigation_depth": 2,
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "pygments_light_style": "tango",
}
html_sidebars = {"index": [], "course": []}
html_context = {"default_mode": "auto"}
project_copyright = "the maintainers of astroml_plugin. Licence: BSD-3-Clause"

PAGES_OF_FILES = {
    "benchmarks/RESULTS.md": "results",
    "tests/RELIABILITY.md": "reliability",
    "deploy/README.md": "deploy_files",
    "CONTRIBUTING.md": "contributing",
    "CHANGELOG.md": "changes",
    "README.md": "index",
}
"""Files outside docs/ that the site shows, and the page that shows each."""

PATTERN = re.compile(r"^(\w+\*)\n", re.MULTILINE)
"""A line of a table of contents that names pages which may be still to come."""
LINK = re.compile(r"\[([^\[\]]*)\]\((?!\w+:|#)([^)\s]+)\)")


def show_files_of_the_repository(app: Any, page: str, source: list[str]) -> None:
    """Give a page the text of the file that it stands for, and lead links out of docs/ to such pages."""
    files = {name: file for file, name in PAGES_OF_FILES.items() if name != "index"}
    folder = (ROOT / "docs" / page).parent
    if page in files:
        source[0] = (ROOT / files[page]).read_text()
        folder = (ROOT / files[page]).parent
    if not page.startswith(("generated/", "tutorials/t")):
        source[0] = LINK.sub(lambda link: _link(link[1], link[2], folder, page), source[0])
        source[0] = PATTERN.sub(lambda line: line[0] if any(folder.glob(line[1])) else "", source[0])


def _link(text: str, target: str, folder: Path, page: str) -> str:
    """A Markdown link as it must read on the page of the site."""
    path, mark, anchor = target.partition("#")
    file = (folder / path).resolve()
    if not file.is_relative_to(ROOT):
        return f"[{text}]({target})"
    name, up = str(file.relative_to(ROOT)), "../" * page.count("/")
    if name in PAGES_OF_FILES:
        return f"[{text}]({up}{PAGES_OF_FILES[name]}.md{mark}{anchor})"
    if name.startswith("docs/"):
        return f"[{text}]({up}{name.removeprefix('docs/')}{mark}{anchor})"
    if file.is_dir() or file.suffix == ".md":
        return f"`{name}`" if text in name else f"{text} (`{name}` in the repository)"
    return f"[{text}]({up}../{name})"


def write_reference(app: Any, config: Any) -> None:
    """Write the list of all stable names, for Sphinx to fill with their docstrings; docs/api.md says which they are."""
    page = (ROOT / "docs" / "api.md").read_text()
    rows = re.findall(r"^\| `(workflows\.\w+)` \| (.+) \|$", page, re.MULTILINE)
    functions = [f"{module}.{name}" for module, names in rows for name in re.findall(r"`(\w+)`", names)]
    nouns = page.partition("## Names: `astroml_plugin`")[2].partition("## What stable means")[0]
    text = [
        *_heading("Reference", "="),
        "Every stable name with its docstring. :doc:`/api` says what stable means.",
        "",
    ]
    text += [*_heading("Functions: ``workflows``"), "Each is also a verb of the command line.", *_listed(functions)]
    for part in nouns.split("\n### ")[1:]:
        title, _, rest = part.partition("\n")
        names = re.findall(r"^\| `(\w+)` \|", rest, re.MULTILINE)
        text += [*_heading(f"{title}: ``astroml_plugin``"), *_listed([f"~astroml_plugin.{name}" for name in names])]
    folder = ROOT / "docs" / "generated"
    folder.mkdir(exist_ok=True)
    (folder / "reference.rst").write_text("\n".join(text))


def _heading(title: str, line: str = "-") -> list[str]:
    return [title, line * len(title), ""]


def _listed(names: list[str]) -> list[str]:
    return ["", ".. autosummary::", "   :toctree: .", "   :nosignatures:", "", *(f"   {name}" for name in names), ""]


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("config-inited", write_reference)
    app.connect("source-read", show_files_of_the_repository)
