"""Losses: telling the same lost byte by its offset one layer further up."""

from collections.abc import Iterator
from contextlib import contextmanager

from vscsihba.errors import MediumError


@contextmanager
def shift_medium_errors(distance: int) -> Iterator[None]:
    """Let a `MediumError` name a byte by its offset plus `distance`, as the layer above counts.

    Raises:
        MediumError: With the offset as seen from above.
    """
    try:
        yield
    except MediumError as error:
        raise MediumError(error.offset + distance, error.strerror or "") from error
