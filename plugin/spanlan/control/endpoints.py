"""CreateEndpoint to DeleteEndpoint: a container's life on a segment.

CreateEndpoint publishes the endpoint, so that the other hosts know it before the container runs; dockerd holds the
network's lock over it, so it does nothing else.  Join, which runs in parallel, makes the link and waits until this
host's tables hold all that the store said.  The link is the sandbox's from then on; it comes back under its old name
between Leave and DeleteEndpoint, and is deleted there.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from spanlan import deadline, drivers
from spanlan.control import host_access
from spanlan.control.debts import Debts
from spanlan.control.following import Following
from spanlan.control.peers import Peers
from spanlan.control.records import Debt, Records
from spanlan.control.segments import Segments
from spanlan.drivers.base import Driver
from spanlan.errors import Gone, Refuse, Retry, SpanlanError
from spanlan.kernel.announce import Announcement
from spanlan.kernel.links import Links
from spanlan.model.address import IPAddress, ip_address
from spanlan.model.cluster import Endpoint
from spanlan.model.host import Handover, LanAttachment
from spanlan.model.local import LocalEndpoint, Network
from spanlan.model.mac import Mac, format_mac
from spanlan.model.request import EndpointReply, EndpointRequest

log = logging.getLogger(__name__)

_LONGEST_WAIT = 6.0  # seconds for the segment to be in sync and in the kernel


class Endpoints:
    """The endpoints of this host's engine."""

    def __init__(  # noqa: PLR0913 - what it works with, handed over one by one
        self,
        *,
        me: str,
        records: Records,
        segments: Segments,
        peers: Peers,
        debts: Debts,
        links: Links,
        announce: Callable[[Announcement, str], None] = lambda *_: None,
    ) -> None:
        self._me = me
        self._records = records
        self._segments = segments
        self._peers = peers
        self._debts = debts
        self._links = links
        self._announce = announce
        self._changing: set[str] = set()

    def create(self, request: EndpointRequest) -> EndpointReply:
        """Claim the endpoint's addresses in the cluster, and with that publish it.

        Raises Refuse if the network is unknown, or an address or the MAC is held by another endpoint.
        """
        network = self._network(request.network_id)
        reply_mac = request.mac is None
        there = self._records.endpoint(request.endpoint_id)
        if there is not None:
            return EndpointReply(mac=there.mac if reply_mac else None)
        _refuse_options(request)
        addresses = _addresses(request)
        mac = _driver(network).mac(network, request, addresses)
        self._debts.pay_all()
        self._refuse_other_mac(network, addresses, mac)
        endpoint = LocalEndpoint(request.endpoint_id, request.network_id, network.segment.name, addresses, mac)
        with self._change(endpoint), ExitStack() as undo:
            self._records.remember_endpoint(endpoint)
            undo.callback(self._withdraw, endpoint)
            self._claim(network, endpoint)
            deadline.check()
            undo.pop_all()
        return EndpointReply(mac=mac if reply_mac else None)

    def join(self, network_id: str, endpoint_id: str, sandbox: str) -> Handover:
        """Make the endpoint's link, once this host's tables hold what the store said of the segment.

        ``sandbox``: the path of the network namespace that the link will be moved to.
        """
        network = self._network(network_id)
        endpoint = self._endpoint(endpoint_id)
        following = self._peers.following(network.segment.name)
        if following is None or not following.wait(deadline.remaining(_LONGEST_WAIT)):
            why = (following and following.lost) or self._peers.lost or "still busy"
            raise Retry(f"segment {network.segment.name} is not set up on this host yet: {why}")
        handover = self._handover(network, endpoint)
        deadline.check()  # a link that is made after dockerd was told "no" is deleted by nobody
        self._links.make_child(handover.link)
        if self._records.endpoint(endpoint_id) is None:
            self._links.delete(handover.link.name)
            raise Gone(f"endpoint {endpoint_id} was deleted while its link was made")
        if handover.announced:
            self._announce(Announcement(handover.link.alias, endpoint.addresses, endpoint.mac), sandbox)
        return handover

    def leave(self, network_id: str, endpoint_id: str) -> None:
        """Nothing to do: the link is still in the sandbox, and belongs to it."""
        self._network(network_id)
        self._endpoint(endpoint_id)

    def delete(self, network_id: str, endpoint_id: str) -> None:
        """Delete the link, give the addresses back, forget the endpoint.  Raises Gone if there is none."""
        self._remove(self._records.network(network_id), self._endpoint(endpoint_id))

    def delete_all(self, network_id: str) -> None:
        """Take away what is left on a network that goes: endpoints whose end dockerd could not tell us."""
        for endpoint in self._records.endpoints():
            if endpoint.network_id == network_id and not host_access.is_host(endpoint.endpoint_id):
                log.info("endpoint %s was left on network %s", endpoint.endpoint_id[:12], network_id[:12])
                self._remove(self._records.network(network_id), endpoint)

    def info(self, endpoint_id: str) -> dict[str, str]:
        """What ``docker network inspect`` may show; informational."""
        endpoint = self._records.endpoint(endpoint_id)
        if endpoint is None:
            return {}
        mac = {} if endpoint.mac is None else {"mac": format_mac(endpoint.mac)}
        return {"segment": endpoint.segment} | mac

    def give_back(self, debt: Debt) -> None:
        """Pay the debt of an endpoint that went while the store was away."""
        self._segments.withdraw(debt["segment"], ip_address(debt["address"]), debt["endpoint"])

    def restore(self, following: Following) -> None:
        """Publish again those endpoints of this host that the store has lost, not those that come or go just now."""
        segment = following.segment.name
        ours = [
            published
            for endpoint in self._records.endpoints()
            if endpoint.segment == segment and endpoint.endpoint_id not in self._changing
            for published in self._published(endpoint)
        ]
        for missing in following.lacks(ours):
            if self._segments.endpoint(segment, missing.address) is not None:
                continue
            log.warning("the store has lost %s on segment %s; writing it again", missing.address, segment)
            self._segments.claim([missing], takes_over=lambda _: False)
            if self._records.endpoint(missing.endpoint_id) is None or missing.endpoint_id in self._changing:
                self._segments.withdraw(segment, missing.address, missing.endpoint_id)  # it went while we wrote

    def enter_host(self, network: Network) -> None:
        """Claim the host's own addresses on a network, as those of an endpoint; see :mod:`control.host_access`."""
        if isinstance(network.attachment, LanAttachment) and network.attachment.host_addresses:
            name, addresses = network.segment.name, network.attachment.host_addresses
            endpoint_id = host_access.endpoint_id(name)
            mac = _driver(network).mac(network, EndpointRequest(network.network_id, endpoint_id), addresses)
            endpoint = LocalEndpoint(endpoint_id, network.network_id, name, addresses, mac)
            with self._change(endpoint):
                self._records.remember_endpoint(endpoint)
                self._claim(network, endpoint)

    def leave_host(self, network: Network) -> None:
        """Give the host's own addresses on a network back."""
        endpoint = self._records.endpoint(host_access.endpoint_id(network.segment.name))
        if endpoint is not None and endpoint.network_id == network.network_id:
            self._withdraw(endpoint)

    def _handover(self, network: Network, endpoint: LocalEndpoint) -> Handover:
        return _driver(network).handover(network, endpoint)

    def _claim(self, network: Network, endpoint: LocalEndpoint) -> None:
        remnants: dict[str, LocalEndpoint] = {}

        def takes_over(holder: Endpoint) -> bool:
            # Our engine gives an address out again only after it has done with the endpoint that had it: what still
            # stands there is what a crash left between two steps.  Unless the pool was lost, and the endpoint lives.
            if holder.host != self._me or host_access.is_host(holder.endpoint_id):
                return holder.host == self._me and holder.endpoint_id == endpoint.endpoint_id
            mine = self._records.endpoint(holder.endpoint_id) or LocalEndpoint(  # the records were lost
                holder.endpoint_id, network.network_id, holder.segment, (holder.address,), holder.mac
            )
            if mine.network_id != network.network_id:
                return False
            if self._links.is_carried(self._handover(network, mine).link):
                return False
            remnants[mine.endpoint_id] = mine
            return True

        self._segments.claim(self._published(endpoint), takes_over)
        for remnant in remnants.values():
            log.info("endpoint %s was left by a crash; its address goes on", remnant.endpoint_id[:12])
            self._remove(network, remnant)

    def _published(self, endpoint: LocalEndpoint) -> list[Endpoint]:
        return [
            Endpoint(endpoint.segment, address, endpoint.mac, self._me, endpoint.endpoint_id)
            for address in endpoint.addresses
        ]

    def _remove(self, network: Network | None, endpoint: LocalEndpoint) -> None:
        try:
            if network is not None:
                self._links.delete(self._handover(network, endpoint).link.name)
        except SpanlanError as error:  # the address must not be held for that; the link goes at the next start
            log.warning("the link of endpoint %s could not be removed: %s", endpoint.endpoint_id[:12], error)
        self._withdraw(endpoint)

    def _withdraw(self, endpoint: LocalEndpoint) -> None:
        with self._change(endpoint):
            for address in endpoint.addresses:
                self._debts.pay_or_owe(_withdrawing(endpoint, address))
            self._records.forget_endpoint(endpoint.endpoint_id)

    @contextmanager
    def _change(self, endpoint: LocalEndpoint) -> Iterator[None]:
        """While an endpoint comes or goes, what the store lacks of it is not lost."""
        self._changing.add(endpoint.endpoint_id)
        try:
            yield
        finally:
            self._changing.discard(endpoint.endpoint_id)

    def _refuse_other_mac(self, network: Network, addresses: tuple[IPAddress, ...], mac: Mac | None) -> None:
        following = self._peers.following(network.segment.name)
        holder = following and mac and following.endpoint_with(mac)
        if mac and holder and holder.address not in addresses and not self._is_over(holder):
            raise Refuse(
                f"MAC {format_mac(mac)} on segment {network.segment.name} is used by {holder}: choose another with "
                "--mac-address, or leave it out"
            )

    def _is_over(self, holder: Endpoint) -> bool:
        """Whether an endpoint of this host has gone, and the store's watch only has not said so yet."""
        return holder.host == self._me and self._records.endpoint(holder.endpoint_id) is None

    def _network(self, network_id: str) -> Network:
        network = self._records.network(network_id)
        if network is None:
            raise Refuse(
                f"network {network_id} is unknown to spanlan on this host (was its state directory removed?): "
                "remove the network with docker network rm and create it again"
            )
        return network

    def _endpoint(self, endpoint_id: str) -> LocalEndpoint:
        endpoint = self._records.endpoint(endpoint_id)
        if endpoint is None:
            raise Gone(f"endpoint {endpoint_id} is unknown to spanlan on this host; start the container again")
        return endpoint


def _driver(network: Network) -> Driver:
    return drivers.DRIVERS[network.segment.mode]


def _withdrawing(endpoint: LocalEndpoint, address: IPAddress) -> Debt:
    return {
        "what": "endpoint",
        "segment": endpoint.segment,
        "address": str(address),
        "endpoint": endpoint.endpoint_id,
    }


def _addresses(request: EndpointRequest) -> tuple[IPAddress, ...]:
    given = [each.ip for each in (request.address, request.address6) if each is not None]
    if not given:
        raise Refuse(
            "the endpoint has no address: create the network with --subnet or --ipam-driver spanlan, "
            "not with the null IPAM driver"
        )
    return tuple(given)


def _refuse_options(request: EndpointRequest) -> None:
    unknown = sorted(name for name in request.options if not name.startswith("com.docker.network."))
    if unknown:
        raise Refuse(f"unknown endpoint option {', '.join(unknown)}: an endpoint of spanlan takes no --driver-opt")
