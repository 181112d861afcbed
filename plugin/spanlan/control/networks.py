"""CreateNetwork and DeleteNetwork: how this host comes to take part in a segment, and leaves it."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Protocol

from spanlan import deadline, drivers
from spanlan.control.debts import Debts
from spanlan.control.following import Following
from spanlan.control.peers import Peers
from spanlan.control.records import Debt, Records
from spanlan.control.segments import Segments
from spanlan.drivers.base import Driver
from spanlan.errors import Gone, Refuse, Retry, SpanlanError
from spanlan.kernel.found import FoundVxlan
from spanlan.model.cluster import Segment
from spanlan.model.host import Attachment, Underlay
from spanlan.model.local import Network
from spanlan.model.request import NetworkPool, NetworkRequest

log = logging.getLogger(__name__)

_LONGEST_WAIT = 6.0  # seconds for the segment to be in sync and in the kernel


class Machine(Protocol):
    """What this module must know about the host (:mod:`spanlan.kernel.facts`)."""

    def underlay(self, name_or_address: str | None = None) -> Underlay:
        """The interface that carries the tunnels."""

    def vxlan_devices(self) -> Sequence[FoundVxlan]:
        """The VXLAN devices of this host, ours and others'."""


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
        machine: Machine,
        underlay: str | None,
        created: Callable[[Sequence[NetworkPool], str | None], None],
    ) -> None:
        self._me = me
        self._records = records
        self._segments = segments
        self._peers = peers
        self._debts = debts
        self._machine = machine
        self._underlay = underlay
        self._created = created
        self._leaving: set[str] = set()
        self._attaching = threading.Lock()

    def resume(self) -> None:
        """Take up again what the records say after a start: every network's segment is followed."""
        for network in self._records.networks():
            self._follow(self._at_present_address(network))

    def create(self, request: NetworkRequest) -> None:
        """Attach a new network to its segment.  Done before: nothing happens.

        Raises Refuse with every mistake of the options, or with what stands in the way and the cure.
        """
        if self._records.network(request.network_id) is not None:
            return
        driver = drivers.choose(request.options)
        chosen = driver.parse(request.options)
        name = driver.segment_name(chosen)
        underlay = self._machine.underlay(driver.parent(chosen) or self._underlay)
        self._debts.pay_all()
        network, following = self._attach(driver, chosen, name, underlay, request)
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
        log.info("network %s attached to segment %s (VNI %d)", request.network_id[:12], name, network.segment.vni)

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
        """Write this host's membership again if the store has lost it, or has another VTEP for it.

        What a network that is leaving misses is not lost.
        """
        name = following.segment.name
        staying = [
            each.network_id
            for each in self._records.networks()
            if each.segment.name == name and each.network_id not in self._leaving
        ]
        vtep = following.vtep_of(self._me)
        if not staying or vtep == following.attachment.vtep:
            return
        if vtep is None:
            log.warning("the store has lost this host's part in segment %s; writing it again", name)
        self._segments.restore_member(following.segment, following.attachment.vtep, staying)
        for network_id in staying:
            if self._records.network(network_id) is None or network_id in self._leaving:
                self._segments.leave(name, network_id)  # it left while we wrote

    def _attach(
        self, driver: Driver, chosen: Any, name: str, underlay: Underlay, request: NetworkRequest
    ) -> tuple[Network, Following]:
        with self._alone(), ExitStack() as undo:
            # Before the attempt: its answer may be lost, and the store know of a network that there never was.
            undo.callback(self._debts.pay_or_owe, leaving(name, request.network_id))
            segment = self._join(driver, chosen, name, underlay, request)
            network = Network(
                network_id=request.network_id,
                segment=segment,
                attachment=driver.attach(chosen, segment, underlay),
                prefix=driver.prefix(chosen),
                internal=request.internal,
            )
            self._refuse_other_attachment(network)
            undo.callback(self._records.forget_network, request.network_id)
            self._records.remember_network(network)
            following = self._follow(network)
            undo.pop_all()
        return network, following

    def _detach(self, network: Network) -> None:
        name, network_id = network.segment.name, network.network_id
        with self._attaching:
            self._leaving.add(network_id)  # so that nobody takes what is missing now for lost
            try:
                self._debts.pay_or_owe(leaving(name, network_id))
                self._records.forget_network(network_id)
            finally:
                self._leaving.discard(network_id)
            if not any(other.segment.name == name for other in self._records.networks()):
                self._peers.unfollow(name, _LONGEST_WAIT / 2)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One network comes or goes at a time: each decides by the others what its segment still needs."""
        if not self._attaching.acquire(timeout=deadline.remaining(_LONGEST_WAIT)):
            raise Retry("other networks of this host are still being made or removed; try again")
        try:
            yield
        finally:
            self._attaching.release()

    def _join(self, driver: Driver, chosen: Any, name: str, underlay: Underlay, request: NetworkRequest) -> Segment:
        def found() -> Segment:
            devices = self._machine.vxlan_devices()
            vni = chosen.vni or self._segments.free_vni([device.vni for device in devices])
            segment = driver.propose(chosen, underlay, vni)
            _refuse_foreign_device(segment, devices)
            return segment

        def fits(segment: Segment) -> Attachment:
            driver.check(chosen, segment, underlay)
            _refuse_foreign_device(segment, self._machine.vxlan_devices())
            return driver.attach(chosen, segment, underlay)

        return self._segments.join(
            name,
            request.network_id,
            found=found,
            fits=lambda segment: fits(segment).vtep,
            pools=[pool.cidr for pool in request.pools if pool.cidr.prefixlen],  # the null IPAM's has none
            vni_given=chosen.vni is not None,
        )

    def _at_present_address(self, network: Network) -> Network:
        """The network with the address that its underlay has by now: a DHCP server may have given it another one."""
        attachment = network.attachment
        try:
            addresses = self._machine.underlay(attachment.interface).addresses
        except SpanlanError as error:
            log.warning("segment %s: its underlay is not ready: %s", network.segment.name, error)
            return network
        present = [address for address in addresses if address.version == attachment.vtep.version]
        if attachment.vtep in present or not present:
            return network
        log.warning("segment %s: its VTEP moves from %s to %s", network.segment.name, attachment.vtep, present[0])
        moved = replace(network, attachment=replace(attachment, vtep=present[0]))
        self._records.remember_network(moved)
        return moved

    def _refuse_other_attachment(self, network: Network) -> None:
        for other in self._records.networks():
            if other.segment.name == network.segment.name and other.attachment != network.attachment:
                raise Refuse(
                    f"network {other.network_id[:12]} of this host is on segment {network.segment.name} with other "
                    "values of parent, ttl, tos or udp_csum, and both share one device: give the same values"
                )

    def _follow(self, network: Network) -> Following:
        driver = drivers.DRIVERS[network.segment.mode]
        return self._peers.follow(Following(network.segment, network.attachment, driver, self._me))


def leaving(segment: str, network_id: str) -> Debt:
    """The debt of a network that has left its segment."""
    return {"what": "network", "segment": segment, "network": network_id}


def _refuse_foreign_device(segment: Segment, devices: Sequence[FoundVxlan]) -> None:
    for device in devices:
        if not device.ours and device.vni == segment.vni and device.port == segment.port:
            raise Refuse(
                f"VNI {segment.vni} on port {segment.port} is taken on this host by {device.name}, which is not ours: "
                "create the segment with another -o vni= or -o vxlan_port=, or remove that device"
            )
