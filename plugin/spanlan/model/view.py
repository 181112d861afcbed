"""This host's picture of one segment, and what a change of it touches.

The view is fed by the store's watch, from a snapshot and from changes alike, and compared by value: an endpoint that
kept its address and moved to another host is a change.  It answers with what must be looked at again, as addresses
(keys of the neighbour table) and MACs (keys of the FDB), so that one change costs the same on a segment of ten
endpoints and on one of a hundred thousand.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from spanlan.model.address import IPAddress
from spanlan.model.cluster import Endpoint, Member
from spanlan.model.mac import Mac


@dataclass(slots=True)
class Touched:
    """What a change made worth computing again."""

    addresses: set[IPAddress] = field(default_factory=set)
    macs: set[Mac] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.addresses or self.macs)

    def add(self, endpoint: Endpoint) -> None:
        """Both entries that an endpoint stands behind."""
        self.addresses.add(endpoint.address)
        if endpoint.mac is not None:
            self.macs.add(endpoint.mac)

    def merge(self, other: "Touched") -> None:
        """Add what another change touched."""
        self.addresses |= other.addresses
        self.macs |= other.macs


class SegmentView:
    """Members and endpoints of a segment, indexed by what the tables in the kernel are keyed by."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.endpoints: dict[IPAddress, Endpoint] = {}
        # Nearly every MAC has one address and a dual-stack one two: tuples are a quarter of the size of sets.
        self._addresses_of: dict[Mac, tuple[IPAddress, ...]] = {}
        self._on_host: dict[str, set[IPAddress]] = {}
        self.withdrawn: frozenset[str] = frozenset()

    def replace(self, members: Iterable[Member], endpoints: Iterable[Endpoint]) -> Touched:
        """Take a snapshot: everything that differs from it, also what has vanished, is touched."""
        touched = Touched()
        new_members = {member.host: member for member in members}
        for host in self.members.keys() - new_members.keys():
            touched.merge(self.drop_member(host))
        for member in new_members.values():
            touched.merge(self.put_member(member))
        new_endpoints = {endpoint.address: endpoint for endpoint in endpoints}
        for address in self.endpoints.keys() - new_endpoints.keys():
            touched.merge(self.drop_endpoint(address))
        for endpoint in new_endpoints.values():
            touched.merge(self.put_endpoint(endpoint))
        return touched

    def put_member(self, member: Member) -> Touched:
        """A host takes part, or is reached by another address now."""
        before = self.members.get(member.host)
        self.members[member.host] = member
        if before is not None and before.underlay == member.underlay:
            return Touched()
        return self._everything_on(member.host)

    def drop_member(self, host: str) -> Touched:
        """A host no longer takes part."""
        if self.members.pop(host, None) is None:
            return Touched()
        return self._everything_on(host)

    def put_endpoint(self, endpoint: Endpoint) -> Touched:
        """An endpoint appears, or its address is now behind another host or MAC."""
        before = self.endpoints.get(endpoint.address)
        if before == endpoint:
            return Touched()
        touched = Touched()
        if before is not None:
            touched.merge(self.drop_endpoint(endpoint.address))
        self.endpoints[endpoint.address] = endpoint
        if endpoint.mac is not None:
            self._addresses_of[endpoint.mac] = (*self._addresses_of.get(endpoint.mac, ()), endpoint.address)
        self._on_host.setdefault(endpoint.host, set()).add(endpoint.address)
        touched.add(endpoint)
        return touched

    def drop_endpoint(self, address: IPAddress) -> Touched:
        """An endpoint is gone."""
        touched = Touched()
        endpoint = self.endpoints.pop(address, None)
        if endpoint is None:
            return touched
        if endpoint.mac is not None:
            self._drop_mac(endpoint.mac, address)
        on_host = self._on_host[endpoint.host]
        on_host.discard(address)
        if not on_host:
            del self._on_host[endpoint.host]
        touched.add(endpoint)
        return touched

    def withdraw(self, hosts: frozenset[str]) -> Touched:
        """Say which hosts are away for good: their endpoints are remembered, but nothing leads to them."""
        touched = Touched()
        for host in hosts ^ self.withdrawn:
            touched.merge(self._everything_on(host))
        self.withdrawn = hosts
        return touched

    def holders_of(self, mac: Mac) -> tuple[Endpoint, ...]:
        """The endpoints behind a MAC, in the order of their addresses' spelling."""
        return tuple(self.endpoints[address] for address in sorted(self._addresses_of.get(mac, ()), key=str))

    def underlay_of(self, host: str, version: int | None = None) -> IPAddress | None:
        """Where a host's endpoints are reached (over IP ``version``); None if it takes no part or is withdrawn."""
        member = None if host in self.withdrawn else self.members.get(host)
        if member is None:
            return None
        return next((each for each in member.underlay if version in {None, each.version}), None)

    def _drop_mac(self, mac: Mac, address: IPAddress) -> None:
        left = tuple(other for other in self._addresses_of[mac] if other != address)
        if left:
            self._addresses_of[mac] = left
        else:
            del self._addresses_of[mac]

    def _everything_on(self, host: str) -> Touched:
        touched = Touched()
        for address in self._on_host.get(host, ()):
            touched.add(self.endpoints[address])
        return touched
