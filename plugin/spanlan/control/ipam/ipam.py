"""The IPAM driver's verbs (protocol section 1.4), each turned into what the rest of this package does."""

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface

from spanlan import deadline, options
from spanlan.control.ipam import picking
from spanlan.control.ipam.addresses import Addresses
from spanlan.control.ipam.automatic import Automatic
from spanlan.control.ipam.defaults import DefaultPool
from spanlan.control.ipam.phases import ShortMemory
from spanlan.control.ipam.pool_id import PoolId
from spanlan.control.ipam.pools import Pools
from spanlan.control.ipam.subnets import Subnets
from spanlan.errors import Refuse, Retry
from spanlan.model.address import IPAddress, IPNetwork, lies_in
from spanlan.model.pool import AddressKind, Release
from spanlan.model.request import NetworkPool, PoolReply, PoolRequest
from spanlan.options import option
from spanlan.store import keys
from spanlan.store.base import Store

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IpamOptions:
    """What ``--ipam-opt`` may say."""

    segment: str | None = option(
        parse=options.name,
        default=None,
        help="Keep the pool in this segment's own address space, where it may use subnets that others use too. "
        "Without --subnet, the network gets the pool that the segment has.",
    )


def _only_log(release: Release) -> None:
    log.warning("the store may hold what nobody asked for: %s", release)


class Ipam:
    """Hands out pools and addresses for one host.

    ``host``: this host's name, which stands in the store beside all that it holds.  ``host_networks``: the networks
    this host uses (default pools avoid them).  ``clock``: seconds, steady.  ``unsettled`` is called with a release when
    the store went away in the middle of a claim, or the deadline passed: dockerd was told that it failed, so the claim
    must not stay if it did reach the store; carry the release out once the store is back.

    All methods may be called from any thread.  They raise Refuse for what the user must change, and Retry when the
    store is away or other hosts were faster for too long.
    """

    def __init__(  # noqa: PLR0913 - each is a seam of its own
        self,
        store: Store,
        *,
        host: str,
        default_pools: Sequence[DefaultPool],
        host_networks: Callable[[], Sequence[IPNetwork]],
        clock: Callable[[], float] = time.monotonic,
        unsettled: Callable[[Release], None] = _only_log,
    ) -> None:
        self._unsettled = unsettled
        self._pools = Pools(store, host=host)
        self._addresses = Addresses(store, self._pools, unsettled=unsettled)
        self._automatic = Automatic(store, self._addresses)
        self._creating = ShortMemory(clock)
        self._offers = ShortMemory(clock)
        self._automatic_pools = ShortMemory(clock)
        self._subnets = Subnets(
            self._pools, self._offers, host=host, default_pools=default_pools, host_networks=host_networks
        )

    def request_pool(self, request: PoolRequest) -> PoolReply:
        """Grant the pool that is asked for, or one that is free.  Its network is being created from now on."""
        space = keys.space_of(_options(request.options).segment)
        cidr = _checked(request)
        asked: list[PoolId] = []
        try:
            if cidr is None:
                pool_id = self._subnets.choose(space, v6=request.v6, taking=asked.append)
            else:
                pool_id = PoolId.new(space, cidr, request.within)
                asked.append(pool_id)
                self._pools.join(pool_id)
        except Retry:
            # The last hold that was asked for may stand in the store; those before it lost their race.
            for last in asked[-1:]:
                self._unsettled(Release(str(last)))
            raise
        self._in_time(Release(str(pool_id)))
        self._creating.begin(pool_id)
        if cidr is None:
            self._automatic_pools.begin(pool_id)
        return PoolReply(str(pool_id), pool_id.cidr)

    def release_pool(self, pool_id: str) -> None:
        """Take a pool back, and whatever this hold still has in it.  May be repeated at any time."""
        self.release(Release(pool_id))

    def request_address(
        self, pool_id: str, address: IPAddress | None, *, gateway: bool
    ) -> IPv4Interface | IPv6Interface:
        """Grant an address: the one asked for, or one that is free; with the pool's prefix length.

        While its network is being created, an explicit address that is no gateway is an auxiliary one.
        """
        hold = PoolId.parse(pool_id)
        self._offers.end(hold)
        if address is None and not gateway:
            self._creating.end(hold)
        with self._creating.during(hold) as creating:
            if gateway and address is None:
                granted = self._addresses.gateway(hold)
            elif address is None:
                granted = self._automatic.claim(hold)
            else:
                granted = address
                if gateway:
                    self._addresses.reserve(hold, address, AddressKind.GATEWAY)
                elif creating:
                    self._addresses.reserve(hold, address, AddressKind.AUXILIARY)
                else:
                    self._addresses.claim(hold, address)
        self._in_time(self._addresses.prepare_release(hold, granted))
        return _interface(granted, hold.cidr)

    def hold_for_host(
        self, cidr: IPNetwork, segment: str, wanted: IPAddress | None, holds: list[str]
    ) -> IPAddress | None:
        """Grant this host an address for itself: ``wanted``, or a free one; None if the pool is not one of ours.

        While the pool's network is being created here, its ``--ip-range`` is kept to.  The id of the hold by which the
        address is held is added to ``holds`` before anything is claimed; :meth:`release_pool` gives both back.
        """
        for space in (keys.space_of(segment), keys.space_of(None)):
            if self._pools.read(space, cidr) is None:
                continue
            within = next((one.within for one in self._creating.all(space, cidr)), None)
            hold = PoolId.new(space, cidr, within)
            holds.append(str(hold))
            self._pools.join(hold)
            if wanted is None:
                return self._automatic.claim(hold)
            self._addresses.claim(hold, wanted)
            return wanted
        return None

    def release_address(self, pool_id: str, address: IPAddress) -> None:
        """Take an address back that was granted under ``pool_id``.  What is not held by it is left alone.

        To repeat it later, when something may have been claimed since, use :meth:`prepare_release`.
        """
        self.release(self.prepare_release(pool_id, address))

    def prepare_release(self, pool_id: str, address: IPAddress) -> Release:
        """The release of an address as it is meant now, to be carried out now or later; reads no store."""
        return self._addresses.prepare_release(PoolId.parse(pool_id), address)

    def release(self, release: Release) -> None:
        """Carry out a release; doing so again, also after a Retry, frees nothing that was claimed since.

        One case is beyond it: a release prepared without a claim (the address was claimed before the last start of the
        daemon) and carried out by yet another start, after the same address was claimed again in between.
        """
        hold = PoolId.parse(release.pool_id)
        if release.address is None:
            self._creating.end(hold)
            self._offers.end(hold)
            self._automatic_pools.end(hold)
            self._addresses.release_all(hold)
            self._pools.release(hold)
        else:
            self._addresses.release(hold, release.address, release.claim)

    def network_created(self, pools: Sequence[NetworkPool], segment: str | None) -> None:
        """CreateNetwork came: explicit addresses of these pools are for containers from now on."""
        spaces = {keys.space_of(None), keys.space_of(segment)}
        for pool in pools:
            self._creating.end_all(pool.cidr, spaces)
            self._offers.end_all(pool.cidr, spaces)
            self._automatic_pools.end_all(pool.cidr, spaces)

    def is_automatic(self, cidr: IPNetwork) -> bool:
        """Whether the pool of a network that is being created was chosen here, for this host: others get other ones."""
        return bool(self._automatic_pools.all(keys.space_of(None), cidr))

    def _in_time(self, release: Release) -> None:
        """Raise Retry if the deadline has passed: nobody waits for the answer any more, so what it grants must go."""
        try:
            deadline.check()
        except Retry:
            self._unsettled(release)
            raise


def _options(given: Mapping[str, str]) -> IpamOptions:
    try:
        return options.parse(IpamOptions, given)
    except Refuse as error:
        raise Refuse(f"--ipam-opt: {error}") from error


def _checked(request: PoolRequest) -> IPNetwork | None:
    """The subnet that is asked for.  Raises Refuse for what cannot be meant."""
    cidr, within = request.cidr, request.within
    if cidr is None:
        if within is not None:
            raise Refuse(f"--ip-range {within} needs the --subnet that it is a part of")
        return None
    if (cidr.version == 6) is not request.v6:  # noqa: PLR2004 - the IP version
        raise Refuse(f"subnet {cidr} was asked for as an IPv{6 if request.v6 else 4} pool")
    if within is not None:
        if not lies_in(within, cidr):
            raise Refuse(f"--ip-range {within} does not lie in --subnet {cidr}; choose a part of it")
        if not picking.pickable(cidr, within).size:
            raise Refuse(f"--ip-range {within} holds no address that a container of {cidr} can have; enlarge it")
    return cidr


def _interface(address: IPAddress, cidr: IPNetwork) -> IPv4Interface | IPv6Interface:
    if isinstance(address, IPv4Address):
        return IPv4Interface((address, cidr.prefixlen))
    return IPv6Interface((address, cidr.prefixlen))
