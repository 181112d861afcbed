"""Two short memories about the course of a ``docker network create``, which the protocol does not tell us.

Both live for seconds, in this process only.  A restart forgets them, and that is the safe side: an explicit address
is then claimed for one endpoint alone, and a segment's pool may be offered once more.
"""

import math
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from spanlan.control.ipam.pool_id import PoolId
from spanlan.model.address import IPNetwork

WINDOW = 3.0
"""Seconds without a request after which a memory lapses.  dockerd sends the next request at once; time that we spend
on answering one does not count."""


class ShortMemory:
    """Holds on pools that are remembered until something ends the memory, or nothing came for a few seconds.

    Two of them are in use.  The *creation phase*: from RequestPool until the network exists, an explicit address is an
    ``--aux-address``, though its request looks like that of ``docker run --ip``.  The *offer*: a pool granted to a
    request without a subnet, as long as no address of it was asked for; dockerd may find that it overlaps a network of
    its host, then keeps the hold and asks again until an answer suits it (protocol, gotcha G12).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last: dict[PoolId, float] = {}

    def begin(self, pool_id: PoolId) -> None:
        """The pool has just been granted."""
        with self._lock:
            self._forget_lapsed()
            self._last[pool_id] = self._clock()

    @contextmanager
    def during(self, pool_id: PoolId) -> Iterator[bool]:
        """Whether it lasts still.  It does not lapse while the block runs; after it, the time starts anew."""
        with self._lock:
            self._forget_lapsed()
            lasts = pool_id in self._last
            if lasts:
                self._last[pool_id] = math.inf
        try:
            yield lasts
        finally:
            with self._lock:
                if pool_id in self._last:
                    self._last[pool_id] = self._clock()

    def end(self, pool_id: PoolId) -> None:
        """What it stood for is over."""
        with self._lock:
            self._last.pop(pool_id, None)

    def end_all(self, cidr: IPNetwork, spaces: Collection[str]) -> None:
        """A network on the pool ``cidr`` of one of these spaces exists now."""
        with self._lock:
            for pool_id in [one for one in self._last if one.cidr == cidr and one.space in spaces]:
                del self._last[pool_id]

    def all(self, space: str, cidr: IPNetwork) -> list[PoolId]:
        """The holds on this pool that are remembered now."""
        with self._lock:
            self._forget_lapsed()
            return [one for one in self._last if one.space == space and one.cidr == cidr]

    def standing(self, space: str, cidr: IPNetwork) -> set[str]:
        """Their nonces."""
        return {one.nonce for one in self.all(space, cidr)}

    def _forget_lapsed(self) -> None:
        oldest = self._clock() - WINDOW
        for pool_id in [one for one, last in self._last.items() if last < oldest]:
            del self._last[pool_id]
