"""Values on a line of the shell."""

import json

from vscsihba.errors import UsageError

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def read_flag(name: str, text: str) -> bool:
    """Return a flag.

    Raises:
        UsageError: The text is neither true nor false.
    """
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise UsageError(f"{name}={text} is neither true nor false", cure=f"use {name}=true")


def read_value(text: str, *, is_text: bool) -> object:
    """Return the JSON value of a word: text, a number, true or false, or a size as text."""
    if is_text:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_number(name: str, text: str) -> int:
    """Return a whole number.

    Raises:
        UsageError: The text is not a whole number.
    """
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"{name} {text!r} is not a number", cure=f"use {name}=0")
    return int(text)
