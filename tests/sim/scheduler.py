"""Threads and time of a simulated machine: one thread runs at a time, and a seed says which.

A `Fiber` is a real thread that runs only while it holds the baton. It hands the baton on at every
lock, wait and system call: always when it has to wait, otherwise as often as the seed says. The
clock is virtual: it jumps to the next deadline when every fiber waits. When every fiber waits and
there is no deadline, that is a deadlock, and it is reported with every fiber's stack.

The module knows processes only as groups of fibers that die together; it knows no files.
"""

import _thread
import os
import queue
import random
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, Final

_real_lock: Final = threading.Lock

TICK: Final = 2e-6
"""Seconds of virtual time between two points at which another fiber may run."""
MOST_STEPS: Final = 300_000
"""Points at which another fiber may run, in one machine: a run has some thousands."""


class Killed(BaseException):
    """The process of this fiber is dead: nothing that it does from now on has an effect."""


class StuckError(AssertionError):
    """Every fiber waits for another one and no deadline is left, or they run for ever."""


class Process:
    """A group of fibers that end together.

    Attributes:
        name: For messages.
        fibers: All that were started in it.
        dead: It was killed; its fibers unwind.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.fibers: list[Fiber] = []
        self.dead = False


class Fiber:
    """One simulated thread."""

    def __init__(self, name: str, process: Process, body: Callable[[], object]) -> None:
        self.name = name
        self.process = process
        self.go = _real_lock()
        self.go.acquire()
        self.ready: Callable[[], bool] | None = None
        self.deadline: float | None = None
        self.expired = self.ended = False
        self.error: BaseException | None = None
        self.ident = 0
        self._body = body

    @property
    def alive(self) -> bool:
        """Tell whether it has not ended yet."""
        return not self.ended

    def run(self) -> None:
        """Run the body; whatever ends it is kept."""
        try:
            if not self.process.dead:
                self._body()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - what ends a thread is judged by the driver
            self.error = error


class _Host:
    """A thread of the interpreter, which one fiber after the other borrows: starting one takes long."""

    def __init__(self) -> None:
        self.go = _real_lock()
        self.go.acquire()
        self.body: Callable[[], None] = lambda: None
        _thread.start_new_thread(self._run, ())  # threading's own class waits on simulated events

    def _run(self) -> None:
        while True:
            self.go.acquire()
            sys.settrace(threading.gettrace())  # as `threading` does, for coverage and mutation testing
            self.body()
            sys.settrace(None)


_idle: Final[list[_Host]] = []
os.register_at_fork(after_in_child=_idle.clear)


def _lend_thread(body: Callable[[], Callable[[], None]]) -> None:
    """Call a function on a thread of its own; what it returns is called when that can be lent again."""
    host = _idle.pop() if _idle else _Host()

    def run() -> None:
        go_on = body()
        host.body = lambda: None
        _idle.append(host)
        go_on()

    host.body = run
    host.go.release()


class Scheduler:
    """Decides which fiber runs, and what time it is.

    Args:
        luck: Chooses among fibers that can run.
        switch: Probability that a fiber hands the baton on although it could go on.

    Attributes:
        now: Virtual seconds since the machine started.
        failures: Exceptions that ended fibers other than the driver, with the fiber's name.
    """

    def __init__(self, luck: random.Random, switch: float) -> None:
        self.luck = luck
        self.switch = switch
        self.now = 1000.0
        self.failures: list[tuple[str, BaseException]] = []
        self.driver = Fiber("driver", Process("driver"), lambda: None)
        self.driver.ident = threading.get_ident()
        self.current = self.driver
        self._fibers = [self.driver]
        self._steps = 0
        self._stuck = ""

    def start(self, name: str, process: Process, body: Callable[[], object]) -> Fiber:
        """Start a fiber; it runs when the scheduler chooses it."""
        fiber = Fiber(name, process, body)
        process.fibers.append(fiber)
        self._fibers.append(fiber)
        _lend_thread(partial(self._host, fiber))
        return fiber

    def pause(self) -> None:
        """Let another fiber run, if the seed says so.

        Raises:
            Killed: The process of the calling fiber is dead.
        """
        me = self.current
        if me.process.dead:
            raise Killed
        self.now += TICK
        self._steps += 1
        if self._steps > MOST_STEPS:
            self._stuck = "livelock: the fibers run for ever"
            self._resume(self.driver, me)
            raise self._give_up() if me is self.driver else Killed
        if self.switch and self.luck.random() < self.switch:
            self._hand_on(me)

    def wait(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait for a condition, `timeout` virtual seconds at most; return whether it came about.

        Raises:
            Killed: The process of the calling fiber is dead.
            StuckError: Nothing can ever happen any more; raised in the driver only.
        """
        me = self.current
        if me.process.dead:
            raise Killed
        if ready():
            return True
        if timeout is not None and timeout <= 0:
            self.pause()
            return ready()
        me.ready, me.expired = ready, False
        me.deadline = None if timeout is None else self.now + timeout
        try:
            self._hand_on(me)
        finally:
            me.ready = me.deadline = None
        return not me.expired or ready()

    def kill(self, process: Process) -> None:
        """Let every fiber of a process unwind; called by the driver."""
        process.dead = True
        for fiber in process.fibers:
            if not fiber.ended:
                self._resume(fiber, self.current)
                assert fiber.ended, f"fiber {fiber.name} survived the death of its process"
        self._fibers = [fiber for fiber in self._fibers if not fiber.ended]

    def _host(self, fiber: Fiber) -> Callable[[], None]:
        """Run a fiber when it is chosen; return what lets the next one run."""
        fiber.go.acquire()
        fiber.ident = threading.get_ident()
        fiber.run()
        fiber.ended = True
        if fiber.error is not None:
            self.failures.append((fiber.name, fiber.error))
        if fiber in self._fibers:
            self._fibers.remove(fiber)
        return partial(self._pass_to, self.driver if fiber.process.dead else self._choose(fiber))

    def _hand_on(self, me: Fiber) -> None:
        """Give the baton to the fiber that is to run next, and wait until it comes back."""
        self._resume(self._choose(me), me)
        if me.process.dead:
            raise Killed
        if me is self.driver and self._stuck:
            raise self._give_up()

    def _resume(self, chosen: Fiber, me: Fiber) -> None:
        if chosen is not me:
            self._pass_to(chosen)
            me.go.acquire()

    def _pass_to(self, chosen: Fiber) -> None:
        self.current = chosen
        chosen.go.release()

    def _choose(self, me: Fiber) -> Fiber:
        """Return the fiber to run next; the clock jumps to a deadline if all wait."""
        runnable = [fiber for fiber in self._fibers if fiber.ready is None or fiber.ready()]
        if runnable:
            if not self.switch:
                return me if me in runnable and me.ready is None else runnable[-1]
            return self.luck.choice(runnable)
        waiting = [fiber for fiber in self._fibers if fiber.deadline is not None]
        if not waiting:
            self._stuck = "deadlock: every fiber waits"
            return self.driver
        first = min(waiting, key=lambda fiber: fiber.deadline or 0.0)
        self.now = max(self.now, first.deadline or 0.0)
        first.expired = True
        return first

    def _give_up(self) -> "StuckError":
        """Return the error that says where every fiber is."""
        frames = sys._current_frames()
        told, self._stuck, self._steps = [f"{self._stuck} (at {self.now:.6f} s)"], "", 0
        for fiber in self._fibers:
            told.append(f"-- {fiber.name} of {fiber.process.name}")
            told += traceback.format_stack(frames[fiber.ident])[-6:] if fiber.ident in frames else ["(new)"]
        return StuckError("\n".join(told))


class Lock:
    """``threading.Lock`` of a simulated machine."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        scheduler = self._scheduler
        scheduler.pause()
        if self._held:
            if not blocking:
                return False
            if not scheduler.wait(lambda: not self._held, None if timeout < 0 else timeout):
                return False
        self._held = True
        return True

    def release(self) -> None:
        if not self._held and not self._scheduler.current.process.dead:
            raise RuntimeError("release unlocked lock")
        self._held = False

    def locked(self) -> bool:
        return self._held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class TokenLock(Lock):
    """`vscsihba.handlers.shared.token_lock.TokenLock` of a simulated machine."""

    def take(self, block: bool = True) -> None:
        if not self.acquire(block):
            raise queue.Empty


class RLock:
    """``threading.RLock`` of a simulated machine."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._owner: Fiber | None = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        scheduler = self._scheduler
        scheduler.pause()
        me = scheduler.current
        if self._owner is not None and self._owner is not me:
            if not blocking:
                return False
            if not scheduler.wait(lambda: self._owner is None, None if timeout < 0 else timeout):
                return False
        self._owner = me
        self._depth += 1
        return True

    def release(self) -> None:
        self._depth -= 1
        if self._depth <= 0:
            self._depth, self._owner = 0, None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Condition:
    """``threading.Condition`` of a simulated machine."""

    def __init__(self, scheduler: Scheduler, lock: Lock | RLock | None = None) -> None:
        self._scheduler = scheduler
        self._lock = lock or RLock(scheduler)
        self._waiting: list[list[bool]] = []
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        told: list[bool] = []
        self._waiting.append(told)
        self._lock.release()
        try:
            return self._scheduler.wait(lambda: bool(told), timeout)
        finally:
            if told in self._waiting:
                self._waiting = [other for other in self._waiting if other is not told]
            if not self._scheduler.current.process.dead:
                self._lock.acquire()

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        end = None if timeout is None else self._scheduler.now + timeout
        while not (found := predicate()):
            left = None if end is None else end - self._scheduler.now
            if left is not None and left <= 0:
                break
            self.wait(left)
        return found

    def notify(self, n: int = 1) -> None:
        for told in self._waiting[:n]:
            told.append(True)
        del self._waiting[:n]

    def notify_all(self) -> None:
        self.notify(len(self._waiting))


class Event:
    """``threading.Event`` of a simulated machine."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._scheduler.pause()
        self._set = True

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        self._scheduler.pause()
        return self._scheduler.wait(lambda: self._set, timeout)


class SimpleQueue:
    """``queue.SimpleQueue`` of a simulated machine."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._items: list[Any] = []

    @classmethod
    def __class_getitem__(cls, _item: object) -> type["SimpleQueue"]:
        return cls

    def put(self, item: Any) -> None:
        self._scheduler.pause()
        self._items.append(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if not block:
            timeout = 0.0
        if not self._scheduler.wait(lambda: bool(self._items), timeout):
            raise TimeoutError
        return self._items.pop(0)

    def empty(self) -> bool:
        return not self._items


class Thread:
    """``threading.Thread`` of a simulated machine; it belongs to the process that makes it."""

    refuse: Callable[[], None] = staticmethod(lambda: None)
    """Called before each start; raises what a machine that has no thread left raises."""

    def __init__(
        self,
        scheduler: Scheduler,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._process = scheduler.current.process
        self.name = name or f"thread-{len(self._process.fibers)}"
        self.daemon = bool(daemon)
        self._call = (target, args, kwargs or {})
        self._fiber: Fiber | None = None

    @property
    def ident(self) -> int | None:
        return self._fiber.ident if self._fiber else None

    def start(self) -> None:
        self._scheduler.pause()
        self.refuse()
        self.begin()

    def begin(self) -> None:
        """Start, whether or not the machine has a thread left."""
        target, args, kwargs = self._call
        body = (lambda: target(*args, **kwargs)) if target else lambda: None
        self._fiber = self._scheduler.start(self.name, self._process, body)

    def join(self, timeout: float | None = None) -> None:
        fiber = self._fiber
        assert fiber is not None, "cannot join thread before it is started"
        self._scheduler.wait(lambda: fiber.ended, timeout)

    def is_alive(self) -> bool:
        return self._fiber is not None and self._fiber.alive


class Timer(Thread):
    """``threading.Timer`` of a simulated machine."""

    def __init__(self, scheduler: Scheduler, interval: float, function: Callable[[], object]) -> None:
        super().__init__(scheduler, self._fire, "timer", daemon=True)
        self._interval = interval
        self._function = function
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def _fire(self) -> None:
        if not self._scheduler.wait(lambda: self._cancelled, self._interval):
            self._function()


def sleep(scheduler: Scheduler, seconds: float) -> None:
    """``time.sleep`` of a simulated machine."""
    scheduler.wait(lambda: False, seconds)


def monotonic(scheduler: Scheduler) -> float:
    """``time.monotonic`` of a simulated machine."""
    scheduler.now += TICK
    return scheduler.now
