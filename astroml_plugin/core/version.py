"""Version of the running code: the commit of a checkout, elsewhere what was installed; a digest of the sources."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

DISTRIBUTION = "astroml-plugin"
NEXT_RELEASE = "0.1.0"
"""Release that commits of a checkout lead to; `fallback_version` in pyproject.toml says the same."""
PACKAGE = Path(__file__).parents[1]


@cache
def version() -> str:
    """Version by PEP 440. In a checkout it names the commit (`0.1.0.dev0+g67b062d9c`), whatever pip once installed.

    An editable install keeps the version of the day it was made, so git's own files are read first, without a process.
    """
    if commit := _commit(PACKAGE.parent):
        return f"{NEXT_RELEASE}.dev0+g{commit[:9]}"
    from importlib import metadata  # 30 ms, which a checkout need not wait for

    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return f"{NEXT_RELEASE}.dev0"


@cache
def code_digest() -> str:
    """Twelve hex digits of the SHA-256 over the package's Python and C files: equal only where the code is."""
    digest = hashlib.sha256()
    for file in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.c")]):
        digest.update(f"{file.relative_to(PACKAGE).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def running() -> tuple[str, str]:
    """Version and digest of the running code: processes whose digests are equal run one code."""
    return version(), code_digest()


def others(running_there: Iterable[tuple[str, str]]) -> str:
    """Versions among `running_there` that are other code than this process runs, as text; empty where there is none."""
    wrong = {f"{version} (code {digest})" for version, digest in running_there if digest != code_digest()}
    return ", ".join(sorted(wrong))


def _commit(root: Path) -> str | None:
    """Commit that the checkout at `root` stands on, or None where there is none to be read."""
    if not (root / "pyproject.toml").is_file():
        return None
    try:
        return _head(_git_folder(root / ".git"))
    except (OSError, UnicodeDecodeError):
        return None


def _git_folder(git: Path) -> Path:
    """Folder of the checkout's HEAD: `.git`, or what a worktree's file `.git` points to."""
    if git.is_dir():
        return git
    return git.parent / git.read_text().removeprefix("gitdir:").strip()


def _head(folder: Path) -> str | None:
    head = (folder / "HEAD").read_text().strip()
    if not head.startswith("ref: "):
        return _checked(head)
    reference = head.removeprefix("ref: ")
    pointer = folder / "commondir"
    shared = folder / pointer.read_text().strip() if pointer.is_file() else folder
    if (shared / reference).is_file():
        return _checked((shared / reference).read_text().strip())
    packed = (line.split(" ") for line in (shared / "packed-refs").read_text().splitlines())
    return next((_checked(words[0]) for words in packed if words[1:] == [reference]), None)


def _checked(commit: str) -> str | None:
    """The commit, where it is one: 40 or 64 hex digits."""
    return commit if len(commit) in (40, 64) and not set(commit) - set("0123456789abcdef") else None
