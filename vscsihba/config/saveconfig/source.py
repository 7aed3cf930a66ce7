"""Careful reading of LIO's file: a value of another type than rtslib-fb writes is an error with its place."""

from collections.abc import Iterator, Mapping
from typing import Any

from vscsihba.errors import ConfigError


class Entry:
    """An object of the file, with its place for messages.

    Args:
        value: The object.
        place: Where it stands, such as ``storage_objects[0]``.

    Raises:
        ConfigError: It is no object.
    """

    def __init__(self, value: object, place: str) -> None:
        if not isinstance(value, Mapping):
            raise ConfigError(place, "it is not an object", cure="use a file that targetcli has saved")
        self._value: Mapping[str, Any] = value
        self.place = place

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text.

        Raises:
            ConfigError: It is missing and has no default, or is no text.
        """
        value = self._value.get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, "a text")
        return value

    def number(self, key: str, default: int | None = None) -> int:
        """Return a whole number, which may be written as a text.

        Raises:
            ConfigError: It is missing and has no default, or is no number.
        """
        value = self._value.get(key, default)
        if isinstance(value, str) and value.strip().isdecimal():
            value = int(value)
        if not isinstance(value, int):
            raise self._wrong(key, "a whole number")
        return int(value)

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return a truth value, which may be written as 0 or 1.

        Raises:
            ConfigError: It is neither.
        """
        value = self._value.get(key, default)
        if value not in (0, 1, "0", "1"):
            raise self._wrong(key, "true or false")
        return value in (1, "1")

    def entries(self, key: str) -> Iterator["Entry"]:
        """Yield the objects of a list; nothing if it is missing.

        Raises:
            ConfigError: It is no list of objects.
        """
        value = self._value.get(key, [])
        if not isinstance(value, list):
            raise self._wrong(key, "a list")
        for at, each in enumerate(value):
            yield Entry(each, f"{self._within(key)}[{at}]")

    def entry(self, key: str) -> "Entry":
        """Return the object of a key; an empty one if it is missing.

        Raises:
            ConfigError: It is no object.
        """
        return Entry(self._value.get(key, {}), self._within(key))

    def has(self, key: str) -> bool:
        """Return whether a key is there and has a value other than an empty text."""
        return self._value.get(key) not in (None, "")

    def keys(self) -> list[str]:
        """Return its keys, sorted."""
        return sorted(self._value)

    def _within(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key

    def _wrong(self, key: str, wanted: str) -> ConfigError:
        return ConfigError(
            self._within(key), f"it is not {wanted}", cure="use a file that targetcli has saved"
        )
