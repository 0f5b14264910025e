"""Texts without secrets: credentials in URLs, keys and signatures in query strings, headers and settings.

Rather too much than too little is hidden: what follows a secret without a space may go with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

HIDDEN = "***"
"""Stands where a secret was."""

_STRONG = (
    "passw(?:or)?d|passphrase|pwd|secret|token|credentials?|signature|cookie|jsessionid|"
    "api[_-]?key|access[_-]?key(?:[_-]?id)?|account[_-]?key|private[_-]?key|secret[_-]?key|shared[_-]?key|"
    "x-(?:amz|goog)-[a-z-]+"
)
_WEAK = "key|sig|sas|auth|pass|pw|policy|key-pair-id"
_WORD = r"[\w.-]{0,40}"
_NAME = rf"(?:{_WORD}(?:{_STRONG}){_WORD}|(?:{_WORD}[_.-])?(?:{_WEAK}))"
_QUOTED = r"""(?P<quote>\\?["'])(?:(?!(?P=quote)).)*"""
_BARE = r"""(?:[^\s&]|&(?![\w.%-]+=))*(?:[^\s&'")\]},.;:]|&(?![\w.%-]+=))"""
_PATTERNS = (
    # auth=('user', 'password') and BasicAuth('user', 'password')
    re.compile(
        r"""(?i)(\b\w*(?:auth|credentials?|login)\w*\s*(?:=\s*)?)\((?=[^()]*['"])(?:"[^"]*"|'[^']*'|[^()'"])*\)"""
    ),
    # headers of several pairs, all of which may let people in
    re.compile(r"""(?i)(\b(?:set-)?cookie2?\s*:\s*)[^\s;'"]+(?:;\s*[\w.-]+(?:=[^\s;'"]*)?)*"""),
    re.compile(r"""(?i)(authorization\s*[:=]\s*digest\s+)\w+=(?:"[^"]*"|[^\s,]+)(?:,\s*\w+=(?:"[^"]*"|[^\s,]+))*"""),
    # a header, whatever its scheme
    re.compile(rf"""(?i)((?:proxy-)?authorization\\?["']?\s*(?:[:=]|%3d|%3a)\s*)(?:{_QUOTED}|(?:\w+\s+)?{_BARE})"""),
    re.compile(r"(?i)(\bbearer(?:\s*:)?\s+)[^\s'\"]+"),
    # name = value, and 'name': 'value'
    re.compile(rf"""(?i)(?<![A-Za-z0-9])({_NAME}\\?["']?\s*(?:=>?|%3d)\s*)(?:{_QUOTED}|{_BARE})"""),
    re.compile(rf"""(?i)(?<![A-Za-z0-9])({_NAME}\\?["']\s*:\s*)(?:{_QUOTED}|{_BARE})"""),
    re.compile(rf"""(?i)(?<![A-Za-z0-9])({_WORD}(?:{_STRONG})\s*(?::|%3a)\s*)(?:{_QUOTED}|{_BARE})"""),
    # words of command lines: --token X, passwd X, -u user:X; and "password X" where X looks like one
    re.compile(rf"""(?i)(?<![\w-])(--{_NAME}\s+)(?!-)(?:{_QUOTED}|{_BARE})"""),
    re.compile(rf"""(?i)\b((?:passwd|pwd)\s+)(?:{_QUOTED}|{_BARE})"""),
    re.compile(rf"""(?i)\b((?:{_STRONG})\s+(?:is\s+|was\s+)?)(?=\S*\d)(?=\S*[a-z])[^\s'"]{{6,}}"""),
    re.compile(r"(?<!\S)((?:-u|--user)[= ]\s*)[^\s:]+:\S+"),
    # parameters of a URL that let people in under other names
    re.compile(r"""(?i)([?&;](?:code|refresh|session(?:id)?|sid|jwt)=)[^\s&;#'"]+"""),
    # user:password@host where no scheme is before it, and the same with : and @ written as %3A and %40
    re.compile(r"""(?<![\w./:@%+*-])([A-Za-z_][\w.+-]*:)(?!//|\S*://)[^\s'",]{4,}(?=@[\w.-])"""),
    re.compile(r"""(?i)(?<![\w.%/+-])()[\w.+-]+%3a[^\s'"&]*(?=%40|@)"""),
    # what is a secret by its looks
    re.compile(r"()eyJ[\w-]{8,}\.[\w-]+\.[\w-]*"),
    re.compile(r"()\b(?:gh[pousr]|github_pat|hf|glpat)[_-]\w{16,}"),
    re.compile(r"()\b(?:(?:xox[abprs]|sk)-|AIza)[\w-]{16,}"),
    re.compile(r"()\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}"),
    re.compile(r"(?s)(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?=-----END|\Z)"),
)
_NO_PORTS = ("s3", "s3a", "s3n", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "hf")
"""Schemes whose URLs name a bucket and no port: what follows a colon in them is a password."""
_AUTHORITY = re.compile(r"[^\s/\\]*")
_PORT = re.compile(r":\d{1,5}(?!\d)[^@]*$")


def redact(text: str) -> str:
    """`text` without user names, passwords, keys, tokens and signatures."""
    text = "".join(_without_users(text))
    for secret in sorted(_remembered, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return text


def remember(url: str) -> None:
    """Hide the password of a URL wherever it stands from now on: storage clients take a URL apart and quote pieces."""
    scheme, *urls = url.split("://")
    for rest in urls:
        password = rest[: _end_of_user(rest, scheme)].partition(":")[2]
        pieces = {piece for text in (password, unquote(password)) for piece in re.split("[/@]", text)}
        _remembered.update(piece for piece in pieces if len(piece) >= _SHORTEST)
        scheme = rest


_remembered: set[str] = set()
_SHORTEST = 6
"""Characters of a piece of a password at least, to be hidden wherever it stands."""


def has_user(url: str) -> bool:
    """Whether a URL names a user or a password."""
    return "".join(_without_users(url)) != url


def _without_users(text: str) -> Iterator[str]:
    """The pieces of a text between its `://`, users and passwords hidden."""
    scheme, *urls = text.split("://")
    yield scheme
    for rest in urls:
        yield "://"
        end = _end_of_user(rest, scheme)
        yield f"{HIDDEN}{rest[end:]}" if end else rest
        scheme = rest


def _end_of_user(rest: str, scheme: str) -> int:
    """Place of the @ that ends user and password in the text behind `://`; 0 where there are none.

    Passwords may hold any character: after `user:` all up to the last @ is taken, beyond slashes and spaces too, but
    that `host:port` is no user.
    """
    found = _AUTHORITY.match(rest)
    authority = found[0] if found else ""
    named = ":" in authority and not authority.startswith("[")
    ports = not scheme.lower().endswith(_NO_PORTS)
    if named and ("@" in authority or not (ports and _PORT.search(authority))):
        return max(rest.partition("\n")[0].rfind("@"), 0)
    return max(authority.rfind("@"), 0)
