"""Which hosts are there.

A host's record in the store lives as long as the host's lease.  When it goes, its endpoints are *withdrawn* after a
grace: nothing leads to them any more, and their addresses stay held.  If we lose the store, nobody is withdrawn, for
then it is we who are away.
"""

from collections.abc import Iterable


class Presence:
    """Hosts that are there, and hosts missed since when.  Not thread-safe; times are monotonic seconds."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._alive: set[str] = set()
        self._missed_since: dict[str, float] = {}
        self._in_sync = False

    def replace(self, names: Iterable[str], now: float) -> None:
        """Take a snapshot of the hosts that are there."""
        alive = set(names)
        for name in self._alive - alive:
            self.vanish(name, now)
        for name in alive:
            self.appear(name)

    def appear(self, name: str) -> None:
        """A host is there."""
        self._alive.add(name)
        self._missed_since.pop(name, None)

    def vanish(self, name: str, now: float) -> None:
        """A host's record has gone."""
        self._alive.discard(name)
        self._missed_since.setdefault(name, now)

    def expect(self, names: Iterable[str], now: float) -> None:
        """Hosts that take part in a segment: those that are not there are missed from now on."""
        for name in names:
            if name not in self._alive:
                self._missed_since.setdefault(name, now)

    def trust(self, in_sync: bool, now: float) -> None:  # noqa: FBT001 - a state, not an option
        """Whether what is known here is the store's present state; a grace starts anew after a time without it."""
        if in_sync and not self._in_sync:
            self._missed_since = dict.fromkeys(self._missed_since, now)
        self._in_sync = in_sync

    def withdrawn(self, now: float) -> frozenset[str]:
        """Hosts missed for longer than the grace, as far as that can be known now; see :meth:`certain`."""
        return frozenset(name for name, since in self._missed_since.items() if now - since >= self._grace)

    @property
    def certain(self) -> bool:
        """Whether withdrawing may be decided now."""
        return self._in_sync

    def next_expiry(self, now: float) -> float | None:
        """When the next grace ends, or None if no host is missed that is not withdrawn already."""
        ends = [since + self._grace for since in self._missed_since.values() if now - since < self._grace]
        return min(ends, default=None)

    @property
    def alive(self) -> frozenset[str]:
        """Hosts that are there."""
        return frozenset(self._alive)
