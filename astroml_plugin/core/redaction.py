"""Texts without secrets: credentials in URLs, keys and signatures in query strings, headers and settings.

Rather too much than too little is hidden: what follows a secret without a space may go with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

from astroml_plugin.core.places import Place, text_of

HIDDEN = "***"
"""Stands where a secret was."""

_PHRASE = "passw(?:or)?d|passphrase|passcode|pwd"
_STRONG = (
    rf"{_PHRASE}|secret|token|credentials?|signature|cookie|jsessionid|verifier|oauth[_-]\w{{1,20}}|"
    "client[_-]assertion|saml(?:request|response)|"
    "(?:api|account|private|secret|shared|subscription|functions?|auth|encryption|master|host|service|session|signing|"
    "consumer|client|application)[_-]?key|access[_-]?key(?:[_-]?id)?|x-(?:amz|goog)-[a-z-]+"
)
_SHORT = "pass|pw|pin|otp"
_WEAK = rf"key|sig|sas|auth|{_SHORT}|policy|key-pair-id"
_WORD = r"[\w.-]{0,40}"
_NAME = rf"(?:{_WORD}(?:{_STRONG}){_WORD}|(?:{_WORD}[_.-])?(?:{_WEAK}))"
_START = r"(?:(?<![A-Za-z0-9])|(?<=%[0-9a-f][0-9a-f]))"
"""Before a name: no letter or digit, or a letter of a URL written as %3F."""

# how names and values are joined and quoted: as they are, within JSON, URLs (twice) and XML
_CODED = r"""\\["']|%(?:25){0,3}2[27]|&quot;|&#3[49];"""
_MARK = rf"""(?:["']|{_CODED})"""
_EQUALS = r"\s*(?:=>?|:=|%(?:25){0,3}3d)\s*"
_COLON = r"\s*(?::|%(?:25){0,3}3a)\s*"
_QUOTED = (
    r"""(?P<plain>"{3}|'{3}|["'])(?:\\.|(?P=plain)(?P=plain)|(?!(?P=plain))[^\\\n])*|"""
    rf"""(?P<coded>{_CODED})(?:\\\\\\["']|(?!(?P=coded)).)*"""
)
_BARE = r"""(?:[^\s&]|&(?![\w.%-]{1,40}=))*(?:[^\s&'")\]},.;:]|&(?![\w.%-]{1,40}=))"""
_LIST = r"""[\[(]\s{0,20}(?=\w{0,2}["'])[^\])\n]{0,400}"""
_VALUE = rf"""(?:[|>][+-]?[ ]*\n[ ]+[^\n]+|(?:[bru]{{1,2}}(?=["']))?(?:{_QUOTED}|{_LIST}|{_BARE}))"""

_COMMANDS = {
    r"(?:mysql\w{0,10}|mariadb[\w-]{0,10}|sshpass|7z[ar]?|rar|unrar|mongo\w{0,10}|cqlsh)": "p",
    r"(?:docker|podman|helm|az|oc|skopeo|buildah)\b[^\n|;]{0,80}\blogin": "p",
    r"(?:sqlcmd|bcp|unzip|zip)": "P",
    r"redis-cli": "a",
    r"ldap\w{1,10}": "w",
}
"""Commands (patterns) -> the letter of their option that takes a password."""

_PATTERNS = (
    # auth=('user', 'password') and BasicAuth('user', 'password')
    re.compile(
        r"""(?i)(\b\w*(?:auth|credentials?|login)\w*\s*(?:=\s*)?)\((?=[^()]*['"])(?:"[^"]*"|'[^']*'|[^()'"])*\)"""
    ),
    # headers of several pairs, all of which may let people in
    re.compile(r"""(?i)(\b(?:set-)?cookie2?\s*:\s*)[^\s;'"]+(?:;\s*[\w.-]+(?:=[^\s;'"]*)?)*"""),
    re.compile(r"""(?i)(authorization\s*[:=]\s*digest\s+)\w+=(?:"[^"]*"|[^\s,]+)(?:,\s*\w+=(?:"[^"]*"|[^\s,]+))*"""),
    # a header, whatever its scheme
    re.compile(rf"""(?i)((?:proxy-)?authorization{_MARK}?(?:{_EQUALS}|{_COLON}))(?:{_QUOTED}|(?:\w+\s+)?{_BARE})"""),
    re.compile(r"(?i)(\bbearer(?:\s*:)?\s+)[^\s'\"]+"),
    # passwords of several words
    re.compile(rf"""(?i){_START}({_WORD}(?:{_PHRASE})\s*:[ \t]*)(?=[\w])[^\n,;)\]}}'"]*[^\s,;)\]}}'".:]"""),
    re.compile(
        rf"""(?im)^([ \t>#*-]{{0,20}}{_WORD}(?:{_PHRASE})[ \t]*=[ \t]+)(?=\w)[^\n,;)\]}}'"&]*[^\s,;)\]}}'"&.:]"""
    ),
    # name="name" value="value"
    re.compile(rf"""(?i)(["'](?:{_WORD}(?:{_STRONG})|{_SHORT})["']\s{{1,20}}value{_EQUALS}){_VALUE}"""),
    # name = value, and 'name': 'value', and ('name', 'value')
    re.compile(rf"(?i){_START}({_NAME}{_MARK}?{_EQUALS}){_VALUE}"),
    re.compile(rf"(?i){_START}({_NAME}{_MARK}{_COLON}){_VALUE}"),
    re.compile(rf"(?i){_START}({_WORD}(?:{_STRONG}){_COLON}){_VALUE}"),
    re.compile(
        rf"""(?im)((?:^|[,;{{(\[&?'"])[ ]{{0,20}}(?:{_WORD}[_.-])?(?:{_SHORT}){_COLON})(?!\d{{1,3}}\b){_VALUE}"""
    ),
    re.compile(rf"""(?i)(\(\s{{0,20}}["']{_WORD}(?:{_STRONG})["'],\s{{0,20}}){_VALUE}"""),
    # <name>value</name>
    re.compile(rf"(?i)(<(?:\w{{1,20}}:)?{_WORD}(?:{_STRONG}|{_SHORT})(?:\s[^<>]*)?>(?:<!\[CDATA\[)?)[^<]+"),
    # words of command lines: --token X, -password X, passwd X, -u user:X, mysql -pX; SECRET 'X' and IDENTIFIED BY 'X'
    re.compile(rf"""(?i)(?<![\w-])(--{_NAME}(?:\s+|["'],\s*))(?!-){_VALUE}"""),
    re.compile(
        rf"""(?i)(?<![\w-])(-(?:{_WORD}(?:{_STRONG})|\w{{0,20}}pass(?:in|out)?)(?:\s+|["'],\s*))(?!-){_VALUE}"""
    ),
    *(
        re.compile(rf"""(?<![\w-])({command}(?:\.exe)?\b[^\n|;]{{0,300}}?[\s"']-{letter}["',\s]{{0,4}})(?!-){_VALUE}""")
        for command, letter in _COMMANDS.items()
    ),
    re.compile(rf"""(?i)\b((?:passwd|pwd)\s+)(?:{_QUOTED}|{_BARE})"""),
    re.compile(rf"""(?i)\b((?:passw(?:or)?d|passphrase|secret|identified\s+by)\s+)(?:{_QUOTED})"""),
    re.compile(
        rf"""(?i)\b((?:user(?:name)?|login)(?:{_EQUALS}|{_COLON}|\s+(?!(?:and|or|nor|with|without|by|the|a)\s))[^\s,;]{{1,80}}[,;]?\s+(?:and\s+)?"""
        rf"""(?:{_PHRASE}|{_SHORT})(?:{_EQUALS}|{_COLON}|\s+)){_VALUE}"""
    ),
    re.compile(r"""(?m)((?:^|[>'"]) ?PASS )\S+$"""),
    # "password X" and "pass X" where X looks like one
    re.compile(rf"""(?i)\b((?:{_STRONG}|{_SHORT})\s+(?:is\s+|was\s+)?)(?=\S*\d)(?=\S*[a-z])[^\s'"]{{6,}}"""),
    re.compile(r"(?<!\S)((?:-u|--user)[= ]\s*)[^\s:]+:\S+"),
    # parameters of a URL that let people in under other names
    re.compile(r"""(?i)([?&;](?:code|refresh|session(?:id)?|sid|jwt)=)[^\s&;#'"]+"""),
    # user:password@host where no scheme is before it, and the same with : and @ written as %3A and %40
    re.compile(r"""(?<![\w:/.])(//[^\s/:@'"]{1,80}:)(?!\d{1,5}/)[^\s'"]{1,200}(?=@[\w.-])"""),
    re.compile(r"""(?<![\w./:@%+*-])([A-Za-z_][\w.+-]*:)(?!//|\S{0,200}://)[^\s'",]{4,200}(?=@[\w.-])"""),
    re.compile(r"""(?i)(?<![\w.%/+-])()[\w.+-]+%3a[^\s'"&]*(?=%40|@)"""),
)

_BY_LOOKS = (  # what is a secret by its looks, whatever stands before it
    re.compile(r"()eyJ[\w-]{8,}\.[\w-]+\.[\w-]*"),
    re.compile(r"()\b(?:gh[pousr]|github_pat|hf|glpat)[_-]\w{16,}"),
    re.compile(r"()\b(?:(?:xox[abprs]|sk)-|AIza)[\w-]{16,}"),
    re.compile(r"()\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}"),
    re.compile(r"(?s)(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?=-----END|\Z)"),
)
_PLAIN_NAME = re.compile(r"[\w./+,~-]*")
"""Names of files and the like: `_PATTERNS` find nothing there, since each needs a space, a quote, an @ or a joint."""
_NO_PORTS = ("s3", "s3a", "s3n", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "hf")
"""Schemes whose URLs name a bucket and no port: what follows a colon in them is a password."""
_AUTHORITY = re.compile(r"[^\s/\\]*")
_PORT = re.compile(r":\d{1,5}(?!\d)[^@]*$")


def redact(text: Place) -> str:
    """`text` without user names, passwords, keys, tokens and signatures."""
    text = "".join(_without_users(text_of(text)))
    for secret in sorted(_remembered, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for pattern in _BY_LOOKS if _PLAIN_NAME.fullmatch(text) else (*_PATTERNS, *_BY_LOOKS):
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
