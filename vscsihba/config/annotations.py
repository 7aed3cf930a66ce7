"""Annotations of the model's fields: the range of each, and the words of a message that refuses a value."""

import msgspec


def number(low: int, high: int, description: str) -> msgspec.Meta:
    """Return the annotation of a whole number from `low` to `high`."""
    return msgspec.Meta(
        ge=low, le=high, description=description, extra={"use": f"a whole number from {low} to {high}"}
    )


def text(pattern: str, use: str, description: str) -> msgspec.Meta:
    """Return the annotation of a text; `use` says which texts are valid."""
    return msgspec.Meta(pattern=pattern, description=description, extra={"use": use})
