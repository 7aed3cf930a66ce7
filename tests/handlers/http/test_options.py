from pathlib import Path

import pytest

from vscsihba.errors import UsageError
from vscsihba.handlers.stack import build
from vscsihba.handlers.stack_text import parse

URL = "https://cloud.example/a.img"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "ftp://cloud.example/a.img"}, "http:// or https://"),
        ({"url": "//cloud.example/a.img"}, "or https://; on a command line, write http:http://"),
        ({"url": "a.img"}, "http:// or https://"),
        ({"url": "https:///a.img"}, "names no host"),
        ({"url": "https://anna:secret@cloud.example/a.img"}, "credentials_file"),
        ({"url": "https://cloud.example/a b.img"}, "%20"),
        ({"url": "https://cloud.example/a.img\r\nX: y"}, "control character"),
        ({"url": "https://cloud.example/a.img#part"}, "fragment"),
        ({"url": "https://cloud.example:port/a.img"}, "[Pp]ort"),
        ({"url": URL, "timeout": 0}, "timeout"),
        ({"url": URL, "connections": 0}, "connections"),
        ({"url": URL, "client_key": "/k"}, "go together"),
        ({"url": URL, "client_certificate": "/k"}, "go together"),
        ({"url": "http://cloud.example/a", "ca_file": "/ca"}, "https://"),
        ({"url": "http://cloud.example/a", "credentials_file": "/c"}, "https://"),
        ({"url": URL, "proxy": "proxy:3128"}, "proxy"),
        ({"url": URL, "proxy": "http://anna:secret@proxy:3128"}, "environment"),
        ({"url": URL, "format": "qcow2"}, "format"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        build({"handler": "http", **options})
    assert "secret" not in str(refused.value)


def test_a_url_is_the_first_option_of_a_line() -> None:
    assert parse(f"cow:/srv/a.cow|http:{URL}?x=1") == {
        "handler": "cow",
        "path": "/srv/a.cow",
        "next": {"handler": "http", "url": f"{URL}?x=1"},
    }


@pytest.mark.parametrize("text", ["anna", "anna:x\nbert:y\n", "", "anna:\x00", "anna:" + "x" * 5000])
def test_credentials_are_one_line(tmp_path: Path, text: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text(text)
    secret.chmod(0o600)
    with pytest.raises(UsageError, match="one line with user:password"):
        build({"handler": "http", "url": URL, "credentials_file": str(secret)}).check()
