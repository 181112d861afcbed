"""Attempts at a compare-and-set that others race for."""

import random
import time
from collections.abc import Iterator

from spanlan import deadline
from spanlan.errors import Retry

_PATIENCE = 6.0  # seconds of lost races before the caller is asked to come again
_LONGEST_PAUSE = 0.2


def attempts(trouble: str) -> Iterator[int]:
    """Count attempts, spaced by growing random pauses, until the request's deadline or patience ends.

    Leave the loop when one succeeds.  Raises Retry with ``trouble`` when none did.
    """
    until = time.monotonic() + deadline.remaining(_PATIENCE)
    pause = 0.002
    number = 0
    while time.monotonic() < until:
        yield number
        number += 1
        time.sleep(random.uniform(0, pause))  # noqa: S311 - spreads the racers, guards nothing
        pause = min(_LONGEST_PAUSE, 2 * pause)
    raise Retry(f"{trouble}; try again")
