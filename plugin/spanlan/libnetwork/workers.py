"""Worker threads that a request can be taken away from.

dockerd waits for an answer without a limit of its own, and a thread that hangs (in a driver of the kernel, in a
library) cannot be ended from outside.  So a handler runs in a thread of this pool while the thread that must answer
waits for it, and leaves without it when its time is up.  The thread that was left behind keeps its place in the pool
until it ends, which is logged; others are not held up.  The pool never grows beyond its size: when every place is
taken, requests stand in a line of limited length, and beyond that they are told at once.

The threads are daemon threads, unlike those of ``concurrent.futures``: a stuck one must not keep the process alive.
"""

import logging
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from types import FrameType
from typing import TypeVar, cast

from spanlan import deadline
from spanlan.errors import Broken, Retry

T = TypeVar("T")

_log = logging.getLogger(__name__)

# Whoever waits further in learns of the deadline from ``spanlan.deadline`` a little before the thread is left behind:
# its own words are better than ours.
_HEAD_START = 0.05
_LONGEST_HEAD_START = 0.25


class Overdue(Retry):
    """The work was not finished in time; its thread was left behind."""


class Busy(Retry):
    """The work was not begun: every worker is taken."""


class _Job:
    """One piece of work, passed from the thread that waits to the thread that works."""

    __slots__ = ("begun_at", "ended", "ends_at", "error", "finished", "given_up", "result", "thread", "what", "work")

    def __init__(self, what: str, work: Callable[[], object], ends_at: float) -> None:
        self.what = what
        self.work = work
        self.ends_at = ends_at
        self.begun_at = 0.0
        self.thread: int | None = None
        self.result: object = None
        self.error: Exception | None = None
        # Both only under the pool's lock: whether the work came to its end, and whether its requester left before that.
        self.ended = False
        self.given_up = False
        # A plain lock is several times cheaper than an Event, and all that one waiter needs.
        self.finished = threading.Lock()
        self.finished.acquire()


class Workers:
    """At most ``size`` threads, made on demand, and a line of at most ``line`` pieces of work in front of them."""

    def __init__(self, size: int = 64, line: int = 64) -> None:
        self._size = size
        self._line = line
        self._lock = threading.Lock()
        # To a worker that is idle or has just been made; everybody else stands in the line.
        self._handed: SimpleQueue[_Job | None] = SimpleQueue()
        self._waiting: deque[_Job] = deque()
        self._running: set[_Job] = set()
        self._threads = 0
        self._idle = 0
        self._closed = False

    def run(self, what: str, work: Callable[[], T], limit: float) -> T:
        """Do ``work`` in a worker thread and return or raise what it does, at most ``limit`` seconds from now.

        ``what`` names the work in messages.  Raises Overdue when the work was not finished in time, and Busy when it
        was not even begun.
        """
        ends_at = time.monotonic() + limit
        job = _Job(what, work, ends_at - min(_LONGEST_HEAD_START, _HEAD_START * limit))
        self._submit(job)
        if not job.finished.acquire(timeout=max(0.0, ends_at - time.monotonic())):
            self._give_up(job, limit)
        if job.error is not None:
            try:
                raise job.error
            finally:
                del job  # the error's traceback holds this frame, which must not hold the error
        return cast(T, job.result)

    def close(self) -> None:
        """End the idle threads, and the others after their work; further work is refused."""
        with self._lock:
            self._closed = True
            for _ in range(self._threads):
                self._handed.put(None)

    def _submit(self, job: _Job) -> None:
        with self._lock:
            if self._closed:
                raise Busy(f"{job.what}: spanlan is stopping; try again when it is back")
            if self._idle:
                self._idle -= 1
            elif self._threads < self._size:
                threading.Thread(target=self._work, name=f"spanlan-worker-{self._threads}", daemon=True).start()
                self._threads += 1
            elif len(self._waiting) < self._line:
                self._waiting.append(job)
                return
            else:
                raise Busy(f"{job.what} was not begun: {self._crowd()}; try again")
            self._handed.put(job)

    def _give_up(self, job: _Job, limit: float) -> None:
        with self._lock:
            if job.ended:
                return
            job.given_up = True
            if job.thread is None:
                with suppress(ValueError):
                    self._waiting.remove(job)
                raise Busy(f"{job.what} was not begun within {limit:g} s: {self._crowd()}; try again")
            frame = sys._current_frames().get(job.thread)  # noqa: SLF001 - the documented way to see another thread
            place, stack = _place(frame), "".join(traceback.format_stack(frame))
            del frame
        _log.warning(
            "%s was not finished within %g s and is left to itself; it waits here:\n%s", job.what, limit, stack
        )
        raise Overdue(f"{job.what} was not finished within {limit:g} s, it waits in {place}; it may be tried again")

    def _crowd(self) -> str:
        crowd = f"all {self._size} workers are busy"
        if not self._running:  # handed out a moment ago, and not one of them begun
            return crowd
        oldest = min(self._running, key=lambda job: job.begun_at)
        return f"{crowd}, the longest for {time.monotonic() - oldest.begun_at:.1f} s with {oldest.what}"

    def _work(self) -> None:
        job = self._handed.get()
        while job is not None:
            if self._begin(job):
                self._do(job)
                job = self._end(job)
            else:
                job = self._next()
            if job is None:
                job = self._handed.get()

    def _begin(self, job: _Job) -> bool:
        """Whether the job is still wanted."""
        with self._lock:
            if job.given_up:
                return False
            job.thread = threading.get_ident()
            job.begun_at = time.monotonic()
            self._running.add(job)
            return True

    def _next(self) -> _Job | None:
        """The first in the line; if there is none, the worker is idle."""
        with self._lock:
            return self._first_waiting()

    def _first_waiting(self) -> _Job | None:
        if self._waiting:
            return self._waiting.popleft()
        self._idle += 1
        return None

    def _do(self, job: _Job) -> None:
        try:
            with deadline.within(job.ends_at - time.monotonic()):
                job.result = job.work()
        except Exception as error:  # noqa: BLE001 - passed on to the thread that waits, which knows what to do with it
            job.error = error
        except BaseException as error:  # noqa: BLE001 - a handler must not end the worker that runs it
            job.error = Broken(f"{job.what} tried to end its thread ({type(error).__name__})")

    def _end(self, job: _Job) -> _Job | None:
        """Let the job's requester go; the worker's next job, if there is one."""
        with self._lock:
            job.ended = True
            self._running.discard(job)
            # Before the answer goes out: whoever asks next finds this worker idle and needs no new one.
            following = self._first_waiting()
        if job.given_up:
            seconds = time.monotonic() - job.begun_at
            end = "well" if job.error is None else f"with {type(job.error).__name__}: {job.error}"
            _log.warning("%s ended %s after %.1f s, when dockerd had its answer already", job.what, end, seconds)
        else:
            job.finished.release()
        return following


def _place(frame: FrameType | None) -> str:
    """The innermost function of spanlan in a stack: where a person starts to look."""
    innermost: FrameType | None = frame
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("spanlan.") and module != __name__:
            return _dotted(module, frame)
        frame = frame.f_back
    if innermost is None:
        return "a thread that has just ended"
    return _dotted(innermost.f_globals.get("__name__", "?"), innermost)


def _dotted(module: str, frame: FrameType) -> str:
    return f"{module}.{frame.f_code.co_qualname.replace('.<locals>', '')}"
