"""Default pools: where a network gets its subnet from when its user named none (setting SPANLAN_DEFAULT_POOLS)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from spanlan.model.address import IPNetwork, overlaps

_FORM = "a list such as 10.64.0.0/11/20,fd72:8504:65a3::/48/64: networks, each with the prefix length of its pools"


@dataclass(frozen=True, slots=True)
class DefaultPool:
    """A network that is cut into pools: ``base``, and the prefix length of each pool."""

    base: IPNetwork
    size: int


def parse_default_pools(text: str) -> tuple[DefaultPool, ...]:
    """Parse ``BASE/SIZE`` items separated by commas.

    Raises ValueError with a phrase that fits behind "must be", as :mod:`spanlan.options` wants it.
    """
    pools = []
    for item in (part.strip() for part in text.split(",") if part.strip()):
        base_text, _, size_text = item.rpartition("/")
        try:
            base = ip_network(base_text)
            size = int(size_text, 10)
        except ValueError as error:
            raise ValueError(f"{_FORM} (not {item})") from error
        # A pool needs room for a gateway and an endpoint between network and broadcast address.
        longest = base.max_prefixlen - 2
        if "/" not in base_text or not base.prefixlen <= size <= longest:
            raise ValueError(f"{_FORM} (in {item}, the size must be {base.prefixlen} to {longest})")
        pools.append(DefaultPool(base, size))
    return tuple(pools)


parse_default_pools.values = "BASE/SIZE, …"  # type: ignore[attr-defined]

# Private space (RFC 1918) that neither Docker, Kubernetes distributions nor the large clouds take by default, in pools
# of 4094 addresses, and a randomly made unique local prefix (RFC 4193 section 3.2.2).
DEFAULT_POOLS = "10.64.0.0/11/20,fd72:8504:65a3::/48/64"


def first_free(pools: Iterable[DefaultPool], blocked: Sequence[IPNetwork], *, v6: bool) -> IPNetwork | None:
    """The first pool of a family that overlaps nothing in ``blocked``; None if there is none left.

    The cost grows with ``blocked``, not with the number of pools that a base holds.
    """
    for pool in pools:
        if (pool.base.version == 6) is v6:  # noqa: PLR2004 - the IP version
            found = _first_free_in(pool, blocked)
            if found is not None:
                return found
    return None


def _first_free_in(pool: DefaultPool, blocked: Sequence[IPNetwork]) -> IPNetwork | None:
    step = 1 << (pool.base.max_prefixlen - pool.size)
    start = int(pool.base.network_address)
    taken = sorted(
        (int(network.network_address), int(network.broadcast_address))
        for network in blocked
        if overlaps(network, pool.base)
    )
    for low, high in taken:
        if start + step <= low:
            break
        if high >= start:
            start = (high // step + 1) * step
    if start > int(pool.base.broadcast_address):
        return None
    return type(pool.base)((start, pool.size))
