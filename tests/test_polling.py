from collections.abc import Iterator

import pytest

from tests.polling import poll, wait_until


def test_wait_until_returns_the_first_true_value() -> None:
    values: Iterator[int] = iter([0, 0, 7, 8])
    assert wait_until(lambda: next(values), pause=0) == 7


def test_wait_until_fails_with_the_description() -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.01 s: the disk is there"):
        wait_until(lambda: False, "the disk is there", limit=0.01)


def test_wait_until_describes_the_failure_after_it() -> None:
    log = ["started"]
    with pytest.raises(AssertionError, match="ended"):
        wait_until(lambda: log.append("ended"), lambda: log[-1], limit=0)


def test_poll_returns_the_last_value_after_the_limit() -> None:
    assert poll(lambda: "", limit=0) == ""
