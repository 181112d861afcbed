"""The time a request may still take.

dockerd has no read timeout: a handler that hangs, hangs ``docker`` and the network's lock for ever.  So the door
(``libnetwork``) opens a deadline around each request, and whoever waits further in (a store call, a wait for the sync
loop) asks here how long it may.  The deadline travels with the thread, in a context variable, so that no signature has
to carry it.  Code that runs outside a request (watch threads, the sync loop) has no deadline and gets its own limit.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from spanlan.errors import Retry

_ends_at: ContextVar[float | None] = ContextVar("spanlan_deadline", default=None)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Run the block under a deadline of ``seconds`` from now; a nested block can only shorten it."""
    outer = _ends_at.get()
    ends_at = time.monotonic() + seconds
    token = _ends_at.set(ends_at if outer is None else min(ends_at, outer))
    try:
        yield
    finally:
        _ends_at.reset(token)


@contextmanager
def lifted() -> Iterator[None]:
    """Run the block without the request's deadline, under its own limits.

    For what has to be done however late it is: to write down on this host what must not be forgotten.
    """
    token = _ends_at.set(None)
    try:
        yield
    finally:
        _ends_at.reset(token)


def remaining(limit: float) -> float:
    """Seconds that a wait may take now: what is left of the deadline, and never more than ``limit``.

    Raises Retry when the deadline has passed.
    """
    ends_at = _ends_at.get()
    if ends_at is None:
        return limit
    left = ends_at - time.monotonic()
    if left <= 0:
        raise Retry("the request ran out of time before it was finished; try again")
    return min(left, limit)


def check() -> None:
    """Raise Retry if the deadline has passed: called before a step that could not be taken back."""
    remaining(0.0)
