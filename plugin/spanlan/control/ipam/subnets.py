"""Which pool a request without a subnet gets: the segment's own, or a new one out of the default pools.

dockerd may refuse the answer in silence (it overlaps a network of its host) and ask again while it holds what it was
given, so no answer is given twice in a row.
"""

from collections.abc import Callable, Sequence

from spanlan.control.attempts import attempts
from spanlan.control.ipam.defaults import DefaultPool, first_free
from spanlan.control.ipam.phases import ShortMemory
from spanlan.control.ipam.pool_id import PoolId, segment_of
from spanlan.control.ipam.pools import Index, KnownPool, Pools
from spanlan.errors import Refuse
from spanlan.model.address import IPNetwork


class Subnets:
    """Chooses pools.  ``offers``: the holds on pools that were chosen here and not used yet."""

    def __init__(
        self,
        pools: Pools,
        offers: ShortMemory,
        *,
        host: str,
        default_pools: Sequence[DefaultPool],
        host_networks: Callable[[], Sequence[IPNetwork]],
    ) -> None:
        self._pools = pools
        self._offers = offers
        self._host = host
        self._default_pools = tuple(default_pools)
        self._host_networks = host_networks

    def choose(self, space: str, *, v6: bool, taking: Callable[[PoolId], None]) -> PoolId:
        """Hold a pool of the family; ``taking`` hears of each hold just before the store does.

        The choice and the index that it is based on are one transaction, so two hosts that ask for a segment's pool at
        once agree on it.  Raises Refuse if the segment's pool does not suit this host, or the default pools are spent.
        """
        for _ in attempts("a pool could not be had: other hosts took or released pools each time"):
            index = self._pools.index()
            known = self._of_segment(space, index, v6=v6)
            if known is not None:
                pool_id = PoolId.new(space, known.pool.cidr)
                taking(pool_id)
                taken = self._pools.try_join(pool_id, known)
            else:
                pool_id = PoolId.new(space, self._new(index, v6=v6))
                taking(pool_id)
                taken = self._pools.create(pool_id, index)
            if taken is not None:
                self._offers.begin(pool_id)
                return pool_id
        raise AssertionError

    def _of_segment(self, space: str, index: Index, *, v6: bool) -> KnownPool | None:
        """The pool that the segment has, if it was not just offered to this host."""
        segment = segment_of(space)
        if segment is None:
            return None
        for cidr in index.of(space):
            known = self._pools.read(space, cidr) if (cidr.version == 6) is v6 else None  # noqa: PLR2004 - IP version
            if known is None:
                continue
            offered = self._offers.standing(space, cidr)
            if not offered:
                return known
            if any(one.host != self._host or one.nonce not in offered for one in known.pool.holders):
                raise Refuse(
                    f"segment {segment}'s pool {cidr} overlaps a network of this host (see `ip route`, or a name "
                    "server in /etc/resolv.conf): remove that network, or create the segment's networks on all "
                    "hosts with a --subnet that is free on each"
                )
        return None

    def _new(self, index: Index, *, v6: bool) -> IPNetwork:
        # A default route overlaps everything and means nothing here.
        of_host = [network for network in self._host_networks() if network.prefixlen]
        cidr = first_free(self._default_pools, [*index.all, *of_host], v6=v6)
        if cidr is None:
            family = "IPv6" if v6 else "IPv4"
            raise Refuse(
                f"no {family} pool is free in SPANLAN_DEFAULT_POOLS "
                f"({', '.join(f'{pool.base}/{pool.size}' for pool in self._default_pools) or 'empty'}): each overlaps "
                "a pool of the cluster or a network of this host; give the network a --subnet, remove networks that "
                "are not needed, or set SPANLAN_DEFAULT_POOLS to more"
            )
        return cidr
