"""Routes to single addresses, gathered to blocks where neighbouring addresses have the same next hop.

Exactly those addresses that are wanted, in as few routes as that takes: a host whose 256 containers have 10.42.7.0 to
10.42.7.255 is one route to 10.42.7.0/24 for the others.  Addresses are gathered within buckets of 256 (a /24, in IPv6 a
/120), so that one more or less never costs more than its bucket.  Pure.
"""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Final, TypeAlias

from spanlan.model.address import IPAddress, IPNetwork
from spanlan.model.host import NextHop

_BITS: Final = 8  # of an address, within its bucket
_MASK: Final = (1 << _BITS) - 1

_Key: TypeAlias = tuple[int, int]  # IP version; the address without the bits within the bucket
_Run: TypeAlias = tuple[int, int]  # start within the bucket, size: an aligned block


class Blocks:
    """The next hops of single addresses, and the routes that they come to."""

    def __init__(self) -> None:
        self._hops: dict[_Key, dict[int, NextHop]] = {}
        self._routes: dict[_Key, dict[_Run, NextHop]] = {}
        self._count = 0

    def __len__(self) -> int:
        """How many addresses have a next hop."""
        return self._count

    def want(self, hops: Mapping[IPAddress, NextHop | None]) -> dict[IPNetwork, NextHop | None]:
        """Take these next hops (None: the address has none any more); returns the routes that change, with their hops.

        Routes that come stand before those that go (None), so that no address is without one in between.
        """
        touched: set[_Key] = set()
        for address, hop in hops.items():
            number = int(address)
            key: _Key = (address.version, number >> _BITS)
            bucket = self._hops.setdefault(key, {})
            self._count -= len(bucket)
            if hop is None:
                bucket.pop(number & _MASK, None)
            else:
                bucket[number & _MASK] = hop
            self._count += len(bucket)
            touched.add(key)
        come: dict[IPNetwork, NextHop | None] = {}
        gone: dict[IPNetwork, NextHop | None] = {}
        for key in touched:
            self._gather(key, come, gone)
        return come | gone

    def _gather(self, key: _Key, come: dict[IPNetwork, NextHop | None], gone: dict[IPNetwork, NextHop | None]) -> None:
        bucket = self._hops[key]
        before = self._routes.get(key, {})
        now = {run: hop for hop, numbers in _by_hop(bucket) for run in _runs(numbers)}
        come.update((_network(key, run), hop) for run, hop in now.items() if before.get(run) != hop)
        gone.update((_network(key, run), None) for run in before if run not in now)
        if now:
            self._routes[key] = now
        else:
            self._routes.pop(key, None)
            del self._hops[key]


def _by_hop(bucket: Mapping[int, NextHop]) -> Iterable[tuple[NextHop, list[int]]]:
    groups: dict[NextHop, list[int]] = {}
    for number in sorted(bucket):
        groups.setdefault(bucket[number], []).append(number)
    return groups.items()


def _runs(numbers: list[int]) -> Iterator[_Run]:
    """The fewest blocks, their sizes powers of two, that are exactly these sorted numbers."""
    at = 0
    while at < len(numbers):
        start = numbers[at]
        end = at + 1
        while end < len(numbers) and numbers[end] == start + end - at:
            end += 1
        left = end - at
        while left:
            size = min(start & -start or 1 << _BITS, 1 << left.bit_length() - 1)
            yield start, size
            start += size
            left -= size
        at = end


def _network(key: _Key, run: _Run) -> IPNetwork:
    version, prefix = key
    start, size = run
    number = prefix << _BITS | start
    shorter = size.bit_length() - 1
    if version == 4:  # noqa: PLR2004
        return IPv4Network((number, 32 - shorter))
    return IPv6Network((number, 128 - shorter))
