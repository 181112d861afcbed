"""The next free address, for a container that names none.

A cursor in the store remembers, per pool and range, what was handed out last, and the search starts behind it: so a
released address is used again only when the search has come round.  Hosts that search at once find the same address;
who loses looks again and picks at random among more and more of the free ones that follow, so that any number of hosts
is served in a few rounds.
"""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from spanlan import deadline
from spanlan.control.attempts import attempts
from spanlan.control.ipam import picking
from spanlan.control.ipam.addresses import Addresses, exhausted
from spanlan.control.ipam.pool_id import PoolId
from spanlan.errors import Refuse, Retry
from spanlan.model.address import IPAddress
from spanlan.model.pool import HeldAddress
from spanlan.store import codec, keys
from spanlan.store.base import Absent, Commit, Condition, Entry, Put, Store, Unchanged

_PATIENCE = 6.0
_WIDEST_CHOICE = 256


class Automatic:
    """Picks and claims the next free address of a pool or of a range of it."""

    def __init__(self, store: Store, addresses: Addresses) -> None:
        self._store = store
        self._addresses = addresses
        # Cursors as last seen: a hint, checked by the commit.
        self._cursors: dict[str, Entry | None] = {}
        self._turns: dict[str, threading.Lock] = {}

    def claim(self, pool_id: PoolId) -> IPAddress:
        """Hold an address for one endpoint.  Raises Refuse when all are in use."""
        key = keys.cursor(pool_id.space, pool_id.cidr, pool_id.range)
        with self._turn(key):
            if key not in self._cursors:
                self._cursors[key] = self._store.get(key)
            # The first attempt insists that the cursor is as we know it; whoever else picked here has moved it.  To
            # insist again would let one host at a time through, when the addresses alone keep them apart.
            insist, choice = True, 1
            for _ in attempts(f"pool {pool_id.cidr}: other hosts took each address that was picked"):
                held = self._addresses.new_claim(pool_id, self._pick(pool_id, self._cursors[key], choice=choice))
                commit = self._try(pool_id, held, key, insist=insist)
                if self._addresses.is_ours(commit, pool_id, held):
                    return held.address
                taken = commit.current[keys.address(pool_id.space, pool_id.cidr, held.address)] is not None
                if taken and not insist:
                    choice = min(4 * choice, _WIDEST_CHOICE)
                insist = False
        raise AssertionError

    def _try(self, pool_id: PoolId, held: HeldAddress, key: str, *, insist: bool) -> Commit:
        """Write the claim and move the cursor to it."""
        cursor = self._cursors[key]
        unmoved: Condition = Absent(key) if cursor is None else Unchanged(key, cursor.revision)
        moved = codec.encode_cursor(held.address)
        commit = self._addresses.commit_claim(pool_id, held, [unmoved] if insist else [], [Put(key, moved)])
        if commit.succeeded:
            self._cursors[key] = Entry(key, moved, commit.revision)
        elif key in commit.current:
            self._cursors[key] = commit.current[key]
        return commit

    def _pick(self, pool_id: PoolId, cursor: Entry | None, *, choice: int) -> IPAddress:
        span = picking.pickable(pool_id.cidr, pool_id.range)
        after = None if cursor is None else int(codec.decode_cursor(cursor))
        free = picking.free(self._addresses.read_used(pool_id), span, after=after, count=choice)
        if not free:
            raise Refuse(exhausted(pool_id, span, "endpoint"))
        return type(pool_id.cidr.network_address)(secrets.choice(free))

    @contextmanager
    def _turn(self, key: str) -> Iterator[None]:
        """One search at a time in this process: racing ourselves would only cost round trips."""
        turn = self._turns.setdefault(key, threading.Lock())
        if not turn.acquire(timeout=deadline.remaining(_PATIENCE)):
            raise Retry("other containers of this host are waiting for addresses of the same pool; try again")
        try:
            yield
        finally:
            turn.release()
