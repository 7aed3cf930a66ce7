import errno
import time

import pytest

from vscsihba.handlers.rbd.requests import Requests


class Results(list[OSError | None]):
    @property
    def numbers(self) -> list[int | None]:
        return [None if error is None else error.errno for error in self]


def test_a_request_ends_once_with_its_result() -> None:
    requests, results = Requests("rbd/vm1", 60), Results()
    request = requests.begin(results.append, changes=True)
    requests.end(request, None)
    requests.end(request, OSError(errno.EIO, ""))
    requests.expire()
    assert results.numbers == [None]


def test_a_request_ends_at_its_deadline_and_its_late_result_is_dropped() -> None:
    requests, results = Requests("rbd/vm1", 0.01), Results()
    request = requests.begin(results.append, changes=False)
    requests.expire()
    assert not results
    time.sleep(0.02)
    requests.expire()
    assert results.numbers == [errno.ETIMEDOUT]
    assert not requests.take(request)
    requests.end(request, None)
    assert len(results) == 1


def test_changes_wait_for_the_end_of_a_late_change() -> None:
    requests, results = Requests("rbd/vm1", 0.01), Results()
    late = [requests.begin(results.append, changes=True) for _ in range(2)]
    time.sleep(0.02)
    requests.expire()
    for request in late:
        with pytest.raises(TimeoutError, match="has not ended an older request"):
            requests.begin(results.append, changes=True)
        requests.end(requests.begin(results.append, changes=False), None)
        requests.end(request, None)
    requests.end(requests.begin(results.append, changes=True), None)
    assert results.numbers == [errno.ETIMEDOUT, errno.ETIMEDOUT, None, None, None]


def test_a_late_read_holds_up_nothing() -> None:
    requests, results = Requests("rbd/vm1", 0.01), Results()
    requests.begin(results.append, changes=False)
    time.sleep(0.02)
    requests.expire()
    requests.begin(results.append, changes=True)


def test_only_requests_past_their_deadline_expire() -> None:
    requests, results = Requests("rbd/vm1", 0.05), Results()
    requests.begin(results.append, changes=True)
    time.sleep(0.06)
    newer = requests.begin(results.append, changes=False)
    requests.expire()
    assert results.numbers == [errno.ETIMEDOUT]
    assert requests.take(newer)


def test_a_blocked_client_is_blocked_for_good() -> None:
    requests, results = Requests("rbd/vm1", 60), Results()
    first, second = (requests.begin(results.append, changes=True) for _ in range(2))
    requests.end(first, OSError(errno.ESHUTDOWN, "taken over"))
    requests.end(second, None)
    for changes in (True, False):
        with pytest.raises(OSError, match="taken over") as caught:
            requests.begin(results.append, changes=changes)
        assert caught.value.errno == errno.ESHUTDOWN
    assert results.numbers == [errno.ESHUTDOWN, None]
