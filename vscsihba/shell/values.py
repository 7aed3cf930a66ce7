"""Values as people write them on a line of the shell."""

import json

from vscsihba.errors import UsageError

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def read_flag(name: str, text: str) -> bool:
    """Return a yes or a no.

    Raises:
        UsageError: It is neither.
    """
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise UsageError(f"{name}={text} is neither true nor false", cure=f"write {name}=true")


def read_value(text: str, *, is_text: bool) -> object:
    """Return the JSON value that a word stands for: text, a number, true or false, or a size as text."""
    if is_text:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_number(name: str, text: str) -> int:
    """Return a whole number.

    Raises:
        UsageError: It is none.
    """
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"{name} {text!r} is no number", cure=f"write {name}=0")
    return int(text)
