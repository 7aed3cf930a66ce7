"""Secrets taken out of documents and of text.

A document of vscsihba has no secret, only paths of files with secrets. But a handler of somebody else may
take any option, and a URL can contain a user and a token. In doubt a value is removed.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

REMOVED: Final = "(removed)"

_SECRET_KEY: Final = re.compile(
    r"password|passphrase|passwd|(^|_)pass$|secret|token|credential|cookie|(^|_)auth(_|$)|authorization"
    r"|^(chap_)?(mutual_)?user(name|id)?$|(^|_)(key|pin|psk)(_|$)|keyring",
    re.IGNORECASE,
)
"""Keys whose values are removed: secrets, names of their owners, and paths of files with them."""

_USER_INFO: Final = re.compile(r"(?<=://)[^/@\s\"']+@")
_QUERY: Final = re.compile(r"(\w+://[^\s?\"'|,;]+)\?[^\s\"'|,;]+")
_ASSIGNED: Final = re.compile(
    r"((?:pass(?:word|phrase|wd)?|secret|token|credential|authorization)\w*[\"']?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s,;|}]+)",
    re.IGNORECASE,
)


def redacted(value: object, *, key: str = "") -> object:
    """Return a value of a document without secrets; `key` is its key in the object around it."""
    if isinstance(value, Mapping):
        return {name: redacted(inner, key=str(name)) for name, inner in value.items()}
    if _SECRET_KEY.search(key) and value not in (None, "", True, False):
        return REMOVED
    if isinstance(value, str):
        return redacted_text(value)
    if isinstance(value, Sequence):
        return [redacted(inner, key=key) for inner in value]
    return value


def redacted_text(text: str) -> str:
    """Return text, such as a log, without users and queries of URLs and without values named as secrets."""
    text = _USER_INFO.sub(f"{REMOVED}@", text)
    text = _QUERY.sub(rf"\1?{REMOVED}", text)
    return _ASSIGNED.sub(rf"\1{REMOVED}", text)
