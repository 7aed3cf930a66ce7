"""Completions of values: sizes, files, flags. Reads directories, nothing else."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

_UNITS = ("MiB", "GiB", "TiB")
_USUAL = ("256MiB", "1GiB", "10GiB", "100GiB", "1TiB")


def starting(text: str, words: Iterable[str]) -> list[str]:
    """Return the words that begin with `text`; a blank after the only one."""
    matching = sorted(word for word in words if word.startswith(text))
    return [f"{matching[0]} "] if len(matching) == 1 and not matching[0].endswith("=") else matching


def sizes(text: str) -> list[str]:
    """Return sizes that `text` may become: ``10`` may be ``10GiB``."""
    if not text:
        return list(_USUAL)
    number = re.match(r"\d+(\.\d*)?", text)
    return starting(text, [f"{number[0]}{unit}" for unit in _UNITS]) if number else []


def files(text: str) -> list[str]:
    """Return the files whose path begins with `text`, folders with a slash at their end."""
    folder, _, name = text.rpartition("/")
    where = Path(f"{folder}/" if "/" in text else ".")
    try:
        entries = [entry for entry in os.scandir(where) if entry.name.startswith(name)]
    except OSError:
        return []
    front = text[: len(text) - len(name)]
    paths = sorted(f"{front}{entry.name}" + "/" * entry.is_dir() for entry in entries)
    return [f"{paths[0]} "] if len(paths) == 1 and not paths[0].endswith("/") else paths


def flags(text: str) -> list[str]:
    """Return true and false."""
    return starting(text, ("true", "false"))
