"""No secret survives `redact`, whatever its characters and wherever it stands; what is no secret stays."""

from __future__ import annotations

import string
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from astroml_plugin.core import redaction
from astroml_plugin.core.storage import redact, through_obstore

_PRINTABLE = "".join(chr(code) for code in range(32, 127)) + "äß€"
"""Characters of a password in a URL that someone typed without quoting them."""


def secrets(alphabet: str) -> st.SearchStrategy[str]:
    """Words that occur nowhere else in a text."""
    return st.text(alphabet, max_size=30).map(lambda middle: f"Zq7{middle}x9K")


URLS = [
    "s3://AKIAX:{}@bucket/x",
    "ftp://u:{}@host/a.fits",
    "https://user:{}@host:8080/a?b=1",
    "simplecache::s3://k:{}@b/x",
    "cannot read 'https://user:{}@host/x' (404): check it",
    "postgresql://u:{}@h",
    "tls://ana:{}@10.0.0.1:8786",
    "first https://h/x, then s3://k:{}@b/y and https://h/z",
]


@settings(max_examples=400)
@given(secrets(_PRINTABLE).filter(lambda text: "://" not in text), st.sampled_from(URLS))
@example("Zq7top/secret+x@9K", URLS[0])
@example("Zq712/ab x9K", URLS[0])
@example("Zq7'\"x9K", URLS[4])
def test_passwords_in_urls(secret: str, text: str) -> None:
    shown = redact(text.format(secret))
    assert secret not in shown
    assert secret[3:-3] == "" or len(secret) < 12 or secret[2:-2] not in shown


@settings(max_examples=100)
@given(
    secrets(string.ascii_letters + string.digits + "-_.~"), st.sampled_from(["https://{}@github.com/x", "hf://{}@x"])
)
def test_tokens_as_users(secret: str, text: str) -> None:
    assert secret not in redact(text.format(secret))


NAMES = [
    *(
        "X-Amz-Signature",
        "X-Amz-Security-Token",
        "X-Goog-Signature",
        "AWSAccessKeyId",
        "Signature",
        "sig",
        "token",
        "sas",
    ),
    *(
        "api_key",
        "apikey",
        "api-key",
        "auth",
        "key",
        "credential",
        "access_token",
        "account_key",
        "client_secret",
        "pwd",
    ),
    *("password", "passwd", "jsessionid", "access_key", "secret", "session_token", "sas", "pwd"),
]


@settings(max_examples=300)
@given(secrets(string.printable.strip()), st.sampled_from(NAMES), st.sampled_from("?&;#"), st.booleans())
def test_query_strings(secret: str, name: str, before: str, upper: bool) -> None:
    name = name.upper() if upper else name
    given_ = quote(secret, safe="/+=@:")
    shown = redact(f"https://h/x{before}{name}={given_}&band=r")
    assert given_ not in shown
    assert shown.endswith("band=r")


SETTINGS = [
    *("password={}", "pwd={}", "AWS_SECRET_ACCESS_KEY={}", "password: {}", "pwd: {}", "secret => {}", "passphrase={}"),
    *("Authorization: Bearer {}", "authorization: Basic {}", "Proxy-Authorization: {}", "'Authorization': 'Bearer {}'"),
    *("aws_secret_access_key: {}", "x-api-key: {}", "Bearer {}", "AccountKey={};EndpointSuffix=x", "password%3D{}"),
    *("the server said pwd={} is wrong", "db_password={}", "azure_storage_account_key={}", "Cookie: {}"),
]


@settings(max_examples=300)
@given(secrets("".join(set(string.printable) - set(string.whitespace) - set("'\""))), st.sampled_from(SETTINGS))
def test_settings_and_headers(secret: str, text: str) -> None:
    if secret[3:].startswith("&"):
        return
    shown = redact(text.format(secret.replace("&", "")))
    assert secret.replace("&", "") not in shown
    assert "Zq7" not in shown


@settings(max_examples=200)
@given(
    secrets(_PRINTABLE.replace("'", "").replace("\\", "")),
    st.sampled_from(["secret", "key", "api_key", "token", "pwd"]),
)
def test_quoted_values(secret: str, name: str) -> None:
    for text in (f"{{'{name}': '{secret}', 'a': 1}}", f"{name}='{secret}'", f"{{'x': {{'{name}': '{secret}'}}}}"):
        assert secret not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "no Dask scheduler answers at tcp://127.0.0.1:8786: start one, or mail a@b",
        "http://host:8080/data@v2/x.zarr",
        "hf://datasets/user/repo@main/x.parquet",
        "/home/ana/a@b/x:1@2.zarr",
        "file:///home/ana/a@b/x",
        "tls://[::1]:8786/a",
        "https://host/x?band=r&size=3",
        "unknown key 'clas' in [settings]: did you mean 'classes'?",
        "bundle morphology@0123456789ab",
        "the keys of --npz-map: images=x,label=y",
        "monkey=5 donkey=4",
        "check URL, network and credentials",
        "give tcp://HOST:PORT",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_long_texts_end() -> None:
    """A quadratic pattern would take hours."""
    again = (
        "(a:",
        "-//a:",
        "password: ",
        "mysql -p",
        "<password ",
        "%2525",
        "\n",
        "\\",
        "user a ",
        "key=['",
        "key=&a",
        "login ",
    )
    assert all(redact(text * (16_000 // len(text))) for text in again)
    for text in ("a_" * 50_000, "key" * 30_000, "https://" * 10_000, "key=" * 20_000, "'" * 100_000, "://a:" * 20_000):
        redact(text)


def test_a_private_key_is_hidden() -> None:
    shown = redact("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----")
    assert "abc" not in shown
    assert "eyJhbGciOiJI.abc" not in redact("got eyJhbGciOiJI.abcdefgh.xyz")


def test_pieces_of_a_password_are_hidden_wherever_a_client_quotes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_remembered", set())
    redaction.remember("s3://AK:hunter2secret/more%2Bpieces@bucket/x")
    redaction.remember("http://host:8080/a@b")
    assert redact('Invalid bucket name "AK:hunter2secret"') == 'Invalid bucket name "AK:***"'
    assert redact("more+pieces and more%2Bpieces") == "*** and ***"
    assert redact("host bucket 8080") == "host bucket 8080"


def test_urls_with_users_are_left_to_fsspec() -> None:
    assert not through_obstore("https://u:p/w@h/x")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "--password {}",
            "--token {}",
            "--api-key '{}'",
            "passwd {}",
            "pwd {}",
            "the password is {}",
            "-u ana:{} https://h",
        ),
        *("auth=('u', '{}')", 'auth=("{}", "x")', "HTTPBasicAuth('u', '{}')", "credentials = ('{}',)"),
        *("Cookie: theme=dark; sid2={}; x=1", "Set-Cookie: a=b; {}", "bearer: {}"),
        'Authorization: Digest username="u", realm="a b", response="{}"',
        *("ana:{}@host", "cannot open ana:{}@10.0.0.1:/x", "oauth2:{}@git.host/x"),
        *("https://h/x?code={}&b=1", "https://h/x?Policy={}&Key-Pair-Id={}&Signature={}", "https://h/x?a=1&refresh={}"),
        *("https://ana%3A{}@h/x", "ana%3A{}%40host", "https%3A%2F%2Fana%3A{}%40h", "password%3A{}"),
        *("ghp_{}{}", "github_pat_{}_{}", "hf_{}{}", "AKIA{}", "ASIA{}", "xoxb-12-{}{}", "sk-{}{}", "AIza{}-{}"),
    ],
)
def test_secrets_of_command_lines_pairs_and_services(text: str) -> None:
    secret = "IOSFODNN7EXAMPLE" if "A{}" in text and "IA" in text else "hunter2secret"
    assert secret not in redact(text.replace("{}", secret))


@pytest.mark.parametrize(
    "text",
    [
        *("a field at 3:30@noon", "bundle lens@0123456789ab was asked for", "/a/b:long_name@d.fits is a path"),
        *("column password missing", "give the key of the table", "the token of the page", "code=5 of the mask"),
        *("tcp://10.0.0.1:8786 and http://h:80/a", "the author (me) says 'x'", "simplecache::s3://bucket/x"),
    ],
)
def test_words_that_look_like_secrets_and_are_none(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            r"{'password': 'a\'b{}', 'u': 1}",
            r'"{\"password\": \"a\\\"b{}\"}"',
            "password='a''b{}'",
            "password=b'two {}'",
        ),
        *("//user:{}@host/share", "<Password>{}</Password>", "<n:password a='b'>two {}</n:password>"),
        *("Ocp-Apim-Subscription-Key: {}", "x-functions-key: {}", "password: two {}", "password = two {}\nuser = ana"),
        *("mysql -p{}", "mysql -u root -P 3306 -p {} db", "['sshpass', '-p', '{}', 'ssh']", "docker login -u a -p {}"),
        *("redis-cli -h h -a {}", "-password {}", "['--password', '{}']", "CREATE SECRET (TYPE s3, SECRET '{}')"),
        *("user ana pass {}", "machine h login ana password {}", "pass {}2go", "pin={}", "--pin {}", "{pass: {}}"),
        *("oauth_verifier={}", "code_verifier={}", "client_secret%22%3A%22{}", "%7B%2522password%2522%253A%2522{}"),
        *(
            "https://h/?a=b%26password%3D{}",
            "'password': ['a', 'two {}']",
            "password: |\n  two {}",
            "('password', '{}')",
        ),
        '<add key="Password" value="{}"/>',
    ],
)
def test_names_separators_and_quotes_of_many_kinds(text: str) -> None:
    assert "hunter" not in redact(text.replace("{}", "hunter"))


@pytest.mark.parametrize(
    "text",
    [
        *("the pass band is r", "astroml-plugin x -p 3", "pass 3 of 4", "second pass: 3 units", "pinhole=3 spin=2"),
        *("first pass: placing objects", "docker run -p 8080:80 x", "footprint: x", "//host:445/share@v2", "bypass=3"),
        *("unexpected token ')'", "primary_key: object_id", "user and password are in the URL", "bandpass: r"),
    ],
)
def test_sentences_with_such_words_stay(text: str) -> None:
    assert redact(text) == text


@given(st.text(alphabet="aeghkopsw_AIKSP1.-/,+~" + "é", max_size=60) | st.sampled_from(["password", "ghp_", "eyJ"]))
def test_names_of_files_are_searched_for_what_can_be_in_them(name: str) -> None:
    """Most patterns are left out for a name without spaces, quotes and joints: the text is what all of them give."""
    every = name
    for pattern in (*redaction._PATTERNS, *redaction._BY_LOOKS):
        every = pattern.sub(rf"\1{redaction.HIDDEN}", every)
    assert redact(name) == every


def test_a_token_in_the_name_of_a_file_is_hidden() -> None:
    assert redact("/data/ghp_0123456789abcdefghij/1.avro") == "/data/***/1.avro"
