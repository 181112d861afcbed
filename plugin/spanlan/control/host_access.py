"""The host's own place on a LAN segment (``-o host_access=true``): an address, held like that of a container.

It is remembered as an endpoint of the network, under an id that no engine makes, so that it is published, restored and
given back as those are.  Where the network's subnet is a pool of spanlan's IPAM, the address is held there as well;
Docker's own IPAM cannot be asked, so then one is taken from the end of the subnet where it comes last.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

from spanlan.control.ipam import Ipam
from spanlan.control.segments import Segments
from spanlan.errors import Refuse
from spanlan.model.address import IPAddress
from spanlan.model.cluster import HOSTS_OWN, Endpoint, Segment
from spanlan.model.request import NetworkPool

_TRIES = 32


def endpoint_id(segment: str) -> str:
    """The id of the host's own endpoint on a segment."""
    return f"{HOSTS_OWN}{segment}"


def is_host(endpoint: str) -> bool:
    """Whether an endpoint's id is that of a host itself."""
    return endpoint.startswith(HOSTS_OWN)


class HostAccess:
    """Finds addresses for the host itself.  ``me``: its name."""

    def __init__(self, *, me: str, ipam: Ipam, segments: Segments) -> None:
        self._me = me
        self._ipam = ipam
        self._segments = segments

    def hold(
        self, segment: Segment, pools: Sequence[NetworkPool], asked: Sequence[IPAddress], holds: list[str]
    ) -> tuple[IPAddress, ...]:
        """Addresses for the host: those that were ``asked`` for; if none, a free one of each family's first subnet.

        Holds on pools are added to ``holds`` one by one, so that who fails in the middle knows what to give back.
        Raises Refuse if there is none, or one that was asked for is no address of the network or is taken.
        """
        wanted = {address.version: address for address in asked}
        addresses = []
        for version, address in wanted.items():
            if not any(pool.cidr.version == version and address in pool.cidr for pool in pools):
                raise Refuse(f"option host_access={address}: it lies in no subnet of the network; name one that does")
        for version in (4, 6):
            pool = self._pool_for(version, wanted.get(version), pools)
            if pool is not None and (not wanted or version in wanted):
                addresses.append(self._address(segment, pool, wanted.get(version), holds))
        if not addresses:
            raise Refuse("option host_access=true: the network has no subnet that the host could have an address of")
        return tuple(addresses)

    def _pool_for(self, version: int, address: IPAddress | None, pools: Sequence[NetworkPool]) -> NetworkPool | None:
        fitting = [pool for pool in pools if pool.cidr.version == version and pool.cidr.prefixlen]
        if address is not None:
            fitting = [pool for pool in fitting if address in pool.cidr]
        return next(iter(fitting), None)

    def _address(self, segment: Segment, pool: NetworkPool, wanted: IPAddress | None, holds: list[str]) -> IPAddress:
        if wanted is not None and wanted in {pool.gateway, *pool.auxiliary.values()}:
            if wanted == pool.gateway:
                raise Refuse(f"option host_access={wanted}: it is the gateway of the network; give another address")
            return wanted  # --aux-address keeps it for us
        granted = self._ipam.hold_for_host(pool.cidr, segment.name, wanted, holds)
        if granted is not None:
            return granted
        if wanted is not None:
            return wanted
        taken = {pool.gateway, *pool.auxiliary.values()}
        for candidate in islice(_from_the_end(pool), _TRIES):
            if candidate not in taken and self._is_free(segment, candidate):
                return candidate
        raise Refuse(
            f"option host_access=true: the last {_TRIES} addresses of {pool.cidr} are taken; name a free one with "
            "-o host_access=ADDRESS"
        )

    def _is_free(self, segment: Segment, address: IPAddress) -> bool:
        holder: Endpoint | None = self._segments.endpoint(segment.name, address)
        return holder is None or (holder.host == self._me and is_host(holder.endpoint_id))


def _from_the_end(pool: NetworkPool) -> Iterator[IPAddress]:
    """The addresses of a subnet that a host can have, the last ones first."""
    last = int(pool.cidr.broadcast_address)
    whole = pool.cidr.prefixlen >= pool.cidr.max_prefixlen - 1 or pool.cidr.version == 6  # noqa: PLR2004 - RFC 3021
    first = int(pool.cidr.network_address)
    for number in range(last if whole else last - 1, first if not whole else first - 1, -1):
        yield type(pool.cidr.network_address)(number)
