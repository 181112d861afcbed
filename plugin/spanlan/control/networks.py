"""CreateNetwork and DeleteNetwork: how this host comes to take part in a segment, and leaves it."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from spanlan import deadline, drivers
from spanlan.control.debts import Debts
from spanlan.control.following import Following
from spanlan.control.host_access import HostAccess
from spanlan.control.peers import Peers
from spanlan.control.records import Debt, Records
from spanlan.control.releases import releasing
from spanlan.control.segments import Segments
from spanlan.control.sites import Sites
from spanlan.drivers.base import Driver, Site
from spanlan.errors import Gone, Refuse, Retry, SpanlanError
from spanlan.kernel.found import FoundVxlan
from spanlan.model.address import IPAddress, IPNetwork
from spanlan.model.cluster import Segment, Tunnel
from spanlan.model.host import Attachment, LanAttachment, TunnelAttachment
from spanlan.model.local import Network
from spanlan.model.pool import Release
from spanlan.model.request import NetworkPool, NetworkRequest

log = logging.getLogger(__name__)

_LONGEST_WAIT = 6.0  # seconds for the segment to be in sync and in the kernel
_PLACES = 8  # so often another host may be faster to take the address that was chosen for this one


class HostPlace(Protocol):
    """Who publishes the host's own addresses on a network, as endpoints are published."""

    def enter_host(self, network: Network) -> None:
        """Claim them; nothing happens on a network without."""

    def leave_host(self, network: Network) -> None:
        """Give them back."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A network that is to be made, as far as this host alone can tell."""

    driver: Driver
    chosen: Any
    name: str
    site: Site
    request: NetworkRequest


class Networks:
    """The networks of this host's engine."""

    def __init__(  # noqa: PLR0913 - what it works with, handed over one by one
        self,
        *,
        me: str,
        records: Records,
        segments: Segments,
        peers: Peers,
        debts: Debts,
        sites: Sites,
        host_access: HostAccess,
        host: HostPlace,
        automatic: Callable[[IPNetwork], bool],
        created: Callable[[Sequence[NetworkPool], str | None], None],
    ) -> None:
        self._me = me
        self._records = records
        self._segments = segments
        self._peers = peers
        self._debts = debts
        self._sites = sites
        self._host_access = host_access
        self._host = host
        self._automatic = automatic
        self._created = created
        self._leaving: set[str] = set()
        self._attaching = threading.Lock()

    def resume(self) -> None:
        """Take up again what the records say after a start: every network's segment is followed."""
        for network in self._records.networks():
            self._follow(self._at_present_addresses(network))

    def create(self, request: NetworkRequest) -> None:
        """Attach a new network to its segment.  Done before: nothing happens.

        Raises Refuse with every mistake of the options, or with what stands in the way and the cure.
        """
        if self._records.network(request.network_id) is not None:
            return
        driver = drivers.choose(request.options)
        written = driver.parse(request.options)
        pools = tuple(replace(pool, automatic=self._automatic(pool.cidr)) for pool in request.pools)
        name = driver.segment_name(written, replace(request, pools=pools))
        chosen, site = self._sites.find(driver, written)
        self._debts.pay_all()
        network, following = self._attach(_Asked(driver, chosen, name, site, request))
        try:
            if not following.wait(deadline.remaining(_LONGEST_WAIT)):
                raise Retry(  # noqa: TRY301 - undone as whatever else fails here
                    f"segment {name} could not be set up in time: {self._peers.lost or following.lost or 'still busy'}"
                )
            deadline.check()
            self._created(request.pools, name)
        except BaseException:
            self._detach(network)
            raise
        log.info("network %s attached to segment %s (%s)", request.network_id[:12], name, network.segment.mode)

    def readdress(self) -> list[Following]:
        """Take up the addresses that this host has by now; answers with the segments that must be told so."""
        with self._alone():  # a network that goes meanwhile must not be written down again
            for network in self._records.networks():
                self._at_present_addresses(network)
            elsewhere = []
            for name in {network.segment.name for network in self._records.networks()}:
                following, attachment = self._peers.following(name), _shared(self._on(name))
                if following is None:
                    continue
                if following.attachment != attachment:
                    following.reattach(following.segment, attachment)
                    self._peers.mark(name)
                if following.underlay_of(self._me) != attachment.underlay:
                    elsewhere.append(following)
        return elsewhere

    def delete(self, network_id: str) -> None:
        """Detach a network; the last one takes the device along, and in the cluster the segment.

        Raises Gone if there is no such network.
        """
        network = self._records.network(network_id)
        if network is None:
            raise Gone(f"no network {network_id} on this host")
        self._detach(network)
        log.info("network %s detached from segment %s", network_id[:12], network.segment.name)

    def leave(self, debt: Debt) -> None:
        """Pay the debt that :func:`leaving` describes."""
        self._segments.leave(debt["segment"], debt["network"])

    def restore(self, following: Following) -> None:
        """Write this host's membership again if the store has lost it, or says that it is reached otherwise.

        What a network that is leaving misses is not lost.
        """
        name = following.segment.name
        staying = [
            each.network_id
            for each in self._records.networks()
            if each.segment.name == name and each.network_id not in self._leaving
        ]
        there = following.underlay_of(self._me)
        if not staying or there == following.attachment.underlay:
            return
        if there is None:
            log.warning("the store has lost this host's part in segment %s; writing it again", name)
        self._segments.restore_member(following.segment, following.attachment.underlay, staying)
        for network_id in staying:
            if self._records.network(network_id) is None or network_id in self._leaving:
                self._segments.leave(name, network_id)  # it left while we wrote

    def _attach(self, asked: _Asked) -> tuple[Network, Following]:
        request, name = asked.request, asked.name
        holds: list[str] = []
        with self._alone(), ExitStack() as undo:
            undo.callback(self._reattach_those_on, name)
            # Before the attempt: its answer may be lost, and the store know of a network that there never was.
            undo.callback(self._debts.pay_or_owe, leaving(name, request.network_id))
            segment, attachment = self._join(asked)
            undo.callback(self._give_back, holds)
            undo.callback(self._records.forget_network, request.network_id)
            network = self._enter(asked, segment, attachment, holds)
            undo.callback(self._host.leave_host, network)
            following = self._follow(network)
            undo.pop_all()
        return network, following

    def _enter(self, asked: _Asked, segment: Segment, attachment: Attachment, holds: list[str]) -> Network:
        """Write the network down, and give the host its own place on it if the options want that.

        An address that was free a moment ago may be another host's by now; then there is another one.  But not one that
        the user has named.
        """
        request = asked.request
        may_choose = getattr(asked.chosen, "host_access", False) is True
        for tries_left in range(_PLACES if may_choose else 0, -1, -1):
            network = Network(
                network_id=request.network_id,
                segment=segment,
                attachment=self._with_host_access(asked, segment, attachment, holds),
                prefix=asked.driver.prefix(asked.chosen),
                internal=request.internal,
                pools=tuple(pool for pool in request.pools if pool.cidr.prefixlen),
                holds=tuple(holds),
            )
            self._records.remember_network(network)
            try:
                self._host.enter_host(network)
            except BaseException as error:
                self._host.leave_host(network)
                self._records.forget_network(network.network_id)
                if tries_left and isinstance(error, Refuse):
                    continue
                raise
            return network
        raise AssertionError("unreachable")

    def _with_host_access(
        self, asked: _Asked, segment: Segment, attachment: Attachment, holds: list[str]
    ) -> Attachment:
        """The attachment with addresses for the host itself, if the options want that."""
        wanted = getattr(asked.chosen, "host_access", False)
        if wanted is False or not isinstance(attachment, LanAttachment):
            return attachment
        named = () if wanted is True else wanted
        for other in self._on(segment.name):
            raise Refuse(
                f"option host_access=true: network {other.network_id[:12]} of this host is on segment {segment.name} "
                "already, and the host has one place on a segment; give the option when the first network is created"
            )
        addresses = self._host_access.hold(segment, asked.request.pools, named, holds)
        return self._addressed(asked.driver, segment, replace(attachment, host_addresses=addresses))

    def _detach(self, network: Network) -> None:
        name, network_id = network.segment.name, network.network_id
        with self._attaching:
            self._leaving.add(network_id)  # so that nobody takes what is missing now for lost
            try:
                self._host.leave_host(network)
                self._debts.pay_or_owe(leaving(name, network_id))
                self._give_back(network.holds)
                self._records.forget_network(network_id)
            finally:
                self._leaving.discard(network_id)
            self._reattach_those_on(name)

    def _reattach_those_on(self, segment: str) -> None:
        """What a segment still needs on this host after a network has gone: nothing, or what the others say."""
        following, left = self._peers.following(segment), self._on(segment)
        if not left:
            self._peers.unfollow(segment, _LONGEST_WAIT / 2)
        elif following is not None and following.attachment != _shared(left):
            following.reattach(following.segment, _shared(left))
            self._peers.mark(segment)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One network comes or goes at a time: each decides by the others what its segment still needs."""
        if not self._attaching.acquire(timeout=deadline.remaining(_LONGEST_WAIT)):
            raise Retry("other networks of this host are still being made or removed; try again")
        try:
            yield
        finally:
            self._attaching.release()

    def _join(self, asked: _Asked) -> tuple[Segment, Attachment]:
        driver, chosen, site, request = asked.driver, asked.chosen, asked.site, asked.request
        attached: list[Attachment] = []

        def found() -> Segment:
            def free_vni() -> int:
                return self._segments.free_vni([device.vni for device in self._sites.vxlan_devices()])

            return driver.propose(chosen, asked.name, site, free_vni)

        def fits(segment: Segment) -> tuple[IPAddress, ...]:
            driver.check(chosen, segment, site)
            if segment.tunnel is not None:
                _refuse_foreign_device(segment.tunnel, self._sites.vxlan_devices())
            attachment = _known(driver.attach(chosen, segment, site), self._on(asked.name))
            attachment = self._addressed(driver, segment, attachment)
            driver.refuse_beside(attachment, self._records.networks(), self._sites.parent(attachment.interface))
            # Before anything is written: the store would say that this host is reached as the refused network has it.
            self._refuse_other_attachment(asked.name, attachment)
            attached[:] = [attachment]
            return attachment.underlay

        segment = self._segments.join(
            asked.name,
            request.network_id,
            found=found,
            fits=fits,
            pools=[pool.cidr for pool in request.pools if pool.cidr.prefixlen],  # the null IPAM's has none
            vni_given=getattr(chosen, "vni", None) is not None,
        )
        return segment, attached[0]

    def _addressed(self, driver: Driver, segment: Segment, attachment: Attachment) -> Attachment:
        """The attachment with the addresses that its interface has by now."""
        return driver.readdressed(segment, attachment, self._sites.addresses(attachment.interface))

    def _at_present_addresses(self, network: Network) -> Network:
        """The network with the addresses that its interface has by now: a DHCP server may have given it another one."""
        driver, segment = drivers.DRIVERS[network.segment.mode], network.segment
        try:
            attachment = self._addressed(driver, segment, network.attachment)
        except SpanlanError as error:
            log.warning("segment %s: its interface is not ready: %s", segment.name, error)
            return network
        if attachment == network.attachment:
            return network
        told = log.debug if attachment.underlay == network.attachment.underlay else log.warning
        told(
            "segment %s: this host is reached by %s now (it was %s)",
            segment.name,
            ", ".join(map(str, attachment.underlay)) or "nothing",
            ", ".join(map(str, network.attachment.underlay)) or "nothing",
        )
        moved = replace(network, attachment=attachment)
        self._records.remember_network(moved)
        return moved

    def _give_back(self, holds: Sequence[str]) -> None:
        for hold in holds:
            self._debts.pay_or_owe(releasing(Release(hold)))

    def _on(self, segment: str) -> list[Network]:
        """The networks of this host on a segment."""
        return [network for network in self._records.networks() if network.segment.name == segment]

    def _refuse_other_attachment(self, segment: str, attachment: Attachment) -> None:
        for other in self._on(segment):
            if _alike(other.attachment) != _alike(attachment):
                raise Refuse(
                    f"network {other.network_id[:12]} of this host is on segment {segment} with other values "
                    f"({_differences(other.attachment, attachment)}), and both share its links: give the same values, "
                    "or choose another segment with -o segment=NAME"
                )

    def _follow(self, network: Network) -> Following:
        driver, name = drivers.DRIVERS[network.segment.mode], network.segment.name
        there = self._on(name)
        # A later network may have added subnets: it knows them all, and those before it do not.
        segment = max((each.segment for each in there), key=lambda each: len(each.pools))
        attachment = _shared(there)
        following = self._peers.follow(Following(segment, attachment, driver, self._me))
        if following.segment != segment:
            following.reattach(segment, attachment)
            self._peers.mark(name)
        return following


def leaving(segment: str, network_id: str) -> Debt:
    """The debt of a network that has left its segment."""
    return {"what": "network", "segment": segment, "network": network_id}


def _shared(networks: Sequence[Network]) -> Attachment:
    """How the networks of one segment are attached: all alike, but only one may have a place for the host."""
    attachments = [network.attachment for network in networks]
    with_host = (each for each in attachments if isinstance(each, LanAttachment) and each.host_addresses)
    return next(with_host, attachments[0])


def _known(attachment: Attachment, others: Sequence[Network]) -> Attachment:
    """An attachment with the next hops by which other networks of the segment are known to the other hosts already."""
    for other in others:
        if isinstance(attachment, LanAttachment) and isinstance(other.attachment, LanAttachment):
            return replace(attachment, next_hops=other.attachment.next_hops)
    return attachment


def _alike(attachment: Attachment) -> Attachment:
    """An attachment without what follows from the host's addresses, or what one of several networks may have for all.

    Those of a tunnel stay: the user may have named one.
    """
    if not isinstance(attachment, LanAttachment):
        return attachment
    return replace(attachment, host_addresses=(), beyond=(), next_hops=())


def _differences(there: Attachment, here: Attachment) -> str:
    """Where two attachments of one segment differ, as names of options and values."""
    if isinstance(there, TunnelAttachment) and isinstance(here, TunnelAttachment):
        names = {"interface": "parent", "vtep": "vtep", "ttl": "ttl", "tos": "tos", "udp_csum": "udp_csum"}
    elif isinstance(there, LanAttachment) and isinstance(here, LanAttachment):
        kind = here.kind
        names = {"kind": "mode", "parent": "parent", "mode": f"{kind}_mode", "flag": f"{kind}_flag", "mtu": "mtu"}
    else:
        return "mode"
    values = {option: (getattr(there, field), getattr(here, field)) for field, option in names.items()}
    return ", ".join(f"{option} {old} instead of {new}" for option, (old, new) in values.items() if old != new)


def _refuse_foreign_device(tunnel: Tunnel, devices: Sequence[FoundVxlan]) -> None:
    for device in devices:
        if not device.ours and device.vni == tunnel.vni and device.port == tunnel.port:
            raise Refuse(
                f"VNI {tunnel.vni} on port {tunnel.port} is taken on this host by {device.name}, which is not ours: "
                "create the segment with another -o vni= or -o vxlan_port=, or remove that device"
            )
