"""Requests to an HTTP server, several at once, on one thread.

libcurl says which descriptors it waits for and until when; the thread waits for all of them, for calls from
other threads, and for time limits. A range whose server is away is tried again, with growing pauses, until
its time limit.
"""

import errno
import heapq
import itertools
import logging
import os
import select
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from vscsihba import threads
from vscsihba.handlers.http import library
from vscsihba.handlers.http.attempt import PLACES, Attempt, Failed, Failure, Later, Outcome, Redirect
from vscsihba.handlers.http.cures import curl_failures
from vscsihba.handlers.http.easy import EasyHandles
from vscsihba.handlers.http.faults import AwayError, RefusedError
from vscsihba.handlers.http.fetch import Fetch
from vscsihba.handlers.http.location import Location

log = logging.getLogger(__name__)

_MOST_REDIRECTS: Final = 10
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
"""Seconds between two tries of one range."""
_SHORT: Final = 5
"""Responses without a byte of what they have promised, after which a range fails."""
_LOOK: Final = 0.1
"""Seconds between two looks for ranges whose time is over."""
_END: Final = 5.0
"""Seconds to wait for the thread when it is to end."""


class Transfers:
    """The thread, and the ranges that it fetches.

    Args:
        location: The place of the file.
        handles: Handles of libcurl.
        limit: Requests at the same time, at most.
    """

    def __init__(self, location: Location, handles: EasyHandles, limit: int) -> None:
        self._location = location
        self._handles = handles
        self._limit = limit
        self._curl = library.pycurl()
        self._failures = curl_failures(self._curl)
        self._calls: deque[Callable[[], None]] = deque()
        self._urgent: deque[Fetch] = deque()
        self._queue: deque[Fetch] = deque()
        self._paused: list[tuple[float, int, Fetch]] = []
        self._fetches: set[Fetch] = set()
        self._numbers = itertools.count()
        self._active: dict[Any, Attempt] = {}
        self._watched: dict[int, int] = {}
        self._curl_due: float | None = None
        self._look_due = 0.0
        self._not_before = 0.0
        self._away = False
        self._ending = False

    def start(self) -> None:
        """Start the thread.

        Raises:
            OSError: The machine has no thread or descriptor left.
        """
        self._epoll = select.epoll()
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._event, select.EPOLLIN)
        self._multi = self._curl.CurlMulti()
        self._multi.setopt(self._curl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(self._curl.M_TIMERFUNCTION, self._set_timer)
        self._multi.setopt(self._curl.M_MAXCONNECTS, self._limit)
        self._thread = threads.VitalThread(self._run, f"http-{self._event}")
        try:
            threads.start(self._thread)
        except OSError:
            self._release()
            raise

    def close(self) -> None:
        """End the thread; ranges that are still under way fail."""
        self.call(self._end)
        self._thread.join(_END)

    def call(self, function: Callable[[], None]) -> None:
        """Call a function on the thread, soon; for any thread."""
        self._calls.append(function)
        os.eventfd_write(self._event, 1)

    def begin(self, fetch: Fetch) -> None:
        """Begin to fetch a range; on the thread."""
        if self._ending:
            fetch.done(OSError(errno.ENODEV, "the disk is closed"))
            return
        self._fetches.add(fetch)
        self._enqueue(fetch)

    def hurry(self, fetch: Fetch) -> None:
        """Prefer a range that somebody waits for now; on the thread."""
        if not fetch.urgent:
            fetch.urgent = True
            with suppress(ValueError):
                self._queue.remove(fetch)
                self._urgent.append(fetch)

    def _end(self) -> None:
        self._ending = True

    def _run(self) -> None:
        try:
            while not self._ending:
                try:
                    self._round()
                except Exception:  # a barrier: one disk's failure is that disk's alone
                    log.exception("%s: internal error", self._location.url)
                    self._fail_all(errno.EIO, "internal error, see the log")
                    time.sleep(threads.PAUSE)
                    os.eventfd_write(self._event, 1)  # for calls that are left
        finally:
            self._fail_all(errno.ENODEV, "the disk is closed")
            self._release()

    def _round(self) -> None:
        """Wait for something to do, and do it."""
        for descriptor, events in self._epoll.poll(self._wait()):
            if descriptor == self._event:
                self._take_calls()
            elif descriptor in self._watched:
                self._multi.socket_action(descriptor, self._as_curl(events))
        now = time.monotonic()
        if self._curl_due is not None and self._curl_due <= now:
            self._curl_due = None
            self._multi.socket_action(self._curl.SOCKET_TIMEOUT, 0)
        self._collect()
        self._expire(now)
        self._start_some(now)

    def _wait(self) -> float | None:
        """Return the seconds until something is due, None if nothing is."""
        due = [] if self._curl_due is None else [self._curl_due]
        due += [self._paused[0][0]] if self._paused else []
        due += [self._look_due] if self._fetches else []
        due += [self._not_before] if self._startable() else []
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _take_calls(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._event)
        while self._calls:
            self._calls.popleft()()

    def _collect(self) -> None:
        """Take the requests that libcurl has ended."""
        left = 1
        while left:
            left, succeeded, failed = self._multi.info_read()
            for handle in succeeded:
                self._ended(handle, None)
            for handle, code, message in failed:
                lasting, cure = self._failures.get(code, (False, None))
                self._ended(handle, Failure(message or f"error {code} of libcurl", lasting, cure))

    def _ended(self, handle: Any, failure: Failure | None) -> None:
        attempt = self._active.pop(handle)
        self._handles.finish(attempt)
        self._multi.remove_handle(handle)
        self._handles.put_back(attempt)
        self._judge(attempt, attempt.outcome(failure))

    def _judge(self, attempt: Attempt, outcome: Outcome) -> None:
        """Go on with a range after one of its requests has ended."""
        fetch = attempt.fetch
        if fetch.at > attempt.began:
            fetch.tries = 0
        match outcome:
            case None if fetch.at >= fetch.end:
                self._is_back()
                self._finish(fetch)
            case None:
                self._enqueue(fetch)  # the server has sent a part of it
            case Redirect(target):
                self._redirect(attempt, target)
            case Later():
                self._later(attempt, outcome)
            case Failed(error, status):
                if status in PLACES and not fetch.went_back and self._location.leave(attempt.url):
                    fetch.went_back = True
                    self._enqueue(fetch)
                else:
                    self._finish(fetch, error)

    def _redirect(self, attempt: Attempt, target: str) -> None:
        fetch = attempt.fetch
        fetch.redirects += 1
        if fetch.redirects > _MOST_REDIRECTS:
            self._location.leave(self._location.current)
            self._finish(fetch, RefusedError(f"the server redirects more than {_MOST_REDIRECTS} times"))
            return
        try:
            self._location.follow(attempt.url, target)
        except ValueError as error:
            self._finish(fetch, RefusedError(str(error)))
            return
        self._enqueue(fetch)

    def _later(self, attempt: Attempt, later: Later) -> None:
        """Try a range again after a pause, if it is patient."""
        fetch = attempt.fetch
        fetch.reason, fetch.cure = later.reason, later.cure
        fetch.tries += 1
        self._location.leave(attempt.url)
        if not fetch.patient:
            self._finish(fetch, AwayError(later.reason, later.cure))
            return
        if attempt.head.status == 206 and fetch.tries > _SHORT:
            self._finish(fetch, RefusedError(later.reason, later.cure))
            return
        if not self._away:
            self._away = True
            log.warning("%s: %s; trying again", self._location.url, later.reason)
        now = time.monotonic()
        self._not_before = max(self._not_before, now + later.wait)
        pause = min(_FIRST_PAUSE * 2 ** min(fetch.tries - 1, 10), _LONGEST_PAUSE)
        heapq.heappush(self._paused, (now + pause, next(self._numbers), fetch))

    def _is_back(self) -> None:
        if self._away:
            self._away = False
            log.warning("%s: the server delivers again", self._location.url)

    def _enqueue(self, fetch: Fetch) -> None:
        (self._urgent if fetch.urgent else self._queue).append(fetch)

    def _expire(self, now: float) -> None:
        """Let ranges fail whose time is over, and have those tried again whose pause is over."""
        while self._paused and self._paused[0][0] <= now:
            self._enqueue(heapq.heappop(self._paused)[2])
        if now < self._look_due:
            return
        self._look_due = now + _LOOK
        expired = {fetch for fetch in self._fetches if fetch.deadline <= now}
        if expired:
            for attempt in [each for each in self._active.values() if each.fetch in expired]:
                self._drop(attempt)
            for fetch in expired:
                self._finish(fetch, AwayError(fetch.reason, fetch.cure))

    def _finish(self, fetch: Fetch, error: OSError | None = None) -> None:
        """End a range."""
        self._fetches.discard(fetch)
        fetch.done(error)

    def _drop(self, attempt: Attempt) -> None:
        """End a request that is under way; its connection is closed."""
        del self._active[attempt.handle]
        self._multi.remove_handle(attempt.handle)
        self._handles.put_back(attempt)

    def _start_some(self, now: float) -> None:
        """Start requests for ranges that wait, those first that somebody waits for."""
        while now >= self._not_before and (queue := self._startable()):
            fetch = queue.popleft()
            if fetch in self._fetches:
                attempt = self._handles.attempt(fetch, self._location.current)
                self._active[attempt.handle] = attempt
                self._multi.add_handle(attempt.handle)

    def _startable(self) -> deque[Fetch] | None:
        """Return the queue that the next request comes from, None if none may start.

        One connection is left for ranges that somebody waits for.
        """
        if self._urgent and len(self._active) < self._limit:
            return self._urgent
        if self._queue and len(self._active) < max(1, self._limit - 1):
            return self._queue
        return None

    def _fail_all(self, number: int, reason: str) -> None:
        """Let everything fail that is under way."""
        for attempt in list(self._active.values()):
            self._drop(attempt)
        for waiting in (self._urgent, self._queue, self._paused):
            waiting.clear()
        for fetch in list(self._fetches):
            try:
                self._finish(fetch, OSError(number, reason))
            except Exception:
                log.exception("%s: internal error", self._location.url)

    def _release(self) -> None:
        self._multi.close()
        self._handles.close()
        self._epoll.close()
        os.close(self._event)

    def _watch(self, action: int, descriptor: int, _multi: object, _data: object) -> None:
        """Wait for other events of a descriptor from now on; libcurl's callback."""
        curl = self._curl
        if action == curl.POLL_REMOVE:
            if self._watched.pop(descriptor, None) is not None:
                with suppress(OSError):  # it may be closed already
                    self._epoll.unregister(descriptor)
            return
        events = {curl.POLL_IN: select.EPOLLIN, curl.POLL_OUT: select.EPOLLOUT}.get(
            action, select.EPOLLIN | select.EPOLLOUT if action == curl.POLL_INOUT else 0
        )
        if descriptor in self._watched:
            self._epoll.modify(descriptor, events)
        else:
            self._epoll.register(descriptor, events)
        self._watched[descriptor] = events

    def _set_timer(self, milliseconds: int) -> None:
        """Note until when libcurl waits; its callback."""
        self._curl_due = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    def _as_curl(self, events: int) -> int:
        """Return events of epoll as libcurl's."""
        curl, action = self._curl, 0
        if events & (select.EPOLLIN | select.EPOLLHUP):
            action |= curl.CSELECT_IN
        if events & select.EPOLLOUT:
            action |= curl.CSELECT_OUT
        if events & select.EPOLLERR:
            action |= curl.CSELECT_ERR
        return int(action)
