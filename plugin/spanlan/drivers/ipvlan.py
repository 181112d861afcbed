"""ipvlan: containers on the physical LAN behind the MAC of their host.

*l2*: the children share one LAN, and ARP and ND cross it; the switch sees one MAC a host, whatever the number of
containers, which is what wireless and many virtual machines' NICs need.  *l3*: the host routes between its children and
the LAN; nothing is broadcast, and the gateway of the subnet is not asked: the default route is the link itself.  *l3s*:
as l3, with the host's packet filter in the way.

Routed (l3, l3s) segments span hosts without a router: every host has, per container of another host, a route by way of
that host, as flannel's host-gw has per subnet.  A packet for a container that arrives at its host's NIC is taken by the
ipvlan driver before routing, so hosts need not forward.

Mode and flag belong, in the kernel, to the parent.  A second network that asked for others would change the first one
behind its back, so it is refused.  A child has its parent's MAC, so none may be given.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from spanlan import options
from spanlan.drivers import lan, parents
from spanlan.drivers.base import Site
from spanlan.drivers.lan import LanOptions
from spanlan.errors import Refuse
from spanlan.model.address import IPAddress, ip_network
from spanlan.model.cluster import Segment
from spanlan.model.host import (
    Attachment,
    Handover,
    IpvlanLink,
    LanAttachment,
    LanGround,
    NextHop,
    Parent,
    StaticRoute,
    Wanted,
)
from spanlan.model.local import LocalEndpoint, Network
from spanlan.model.mac import Mac, format_mac
from spanlan.model.request import EndpointRequest
from spanlan.model.view import SegmentView, Touched
from spanlan.options import option

_DEFAULT_ROUTE = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
_ROUTED = frozenset({"l3", "l3s"})


@dataclass(frozen=True, slots=True, kw_only=True)
class IpvlanOptions(LanOptions):
    """The ``-o`` options of an ipvlan network."""

    mode: str = option(parse=options.choice("ipvlan"), default="ipvlan", help="kind of network")
    ipvlan_mode: str = option(
        parse=options.choice("l2", "l3", "l3s"),
        default="l2",
        help="switched (l2), routed (l3), or routed through the host's packet filter (l3s)",
    )
    ipvlan_flag: str = option(
        parse=options.choice("bridge", "private", "vepa"),
        default="bridge",
        help="how children of one parent see each other",
    )


class IpvlanDriver(lan.LanDriver):
    """The ipvlan mode."""

    mode = "ipvlan"
    options = IpvlanOptions

    def variant(self, chosen: LanOptions) -> str:
        """Switched and routed hosts do not reach each other, so a segment is one of them."""
        return str(getattr(chosen, "ipvlan_mode", ""))

    def attach(self, chosen: IpvlanOptions, segment: Segment, site: Site) -> LanAttachment:
        """How this host takes part."""
        lan.refuse_no_way_to_the_host(chosen, "ipvlan_flag", frozenset({"private"}), chosen.ipvlan_flag)
        nic = lan.parent_of(site)
        return lan.attach(chosen, segment, nic, kind="ipvlan", mode=chosen.ipvlan_mode, flag=chosen.ipvlan_flag)

    def readdressed(self, segment: Segment, attachment: Attachment, addresses: Sequence[IPAddress]) -> LanAttachment:
        """The attachment, with the addresses by which other hosts route to the containers of this one."""
        ours = super().readdressed(segment, attachment, addresses)
        if ours.mode not in _ROUTED or ours.isolated:
            return ours
        usable = [address for address in addresses if not address.is_link_local]
        hops: dict[int, IPAddress] = {}
        # One that the others know already stays: the kernel may put a new address before those that are there.
        for address in (*(hop for hop in ours.next_hops if hop in usable), *usable):
            hops.setdefault(address.version, address)
        return replace(ours, next_hops=tuple(hops[version] for version in sorted(hops)))

    def refuse_beside(self, attachment: Attachment, others: Sequence[Network], there: Parent | None = None) -> None:
        """Raise Refuse if the network cannot share its parent with those that are there."""
        ours = lan.attachment_of(attachment)
        parents.refuse_other_kind(ours, others)
        parents.refuse_other_settings(ours, others)
        for other, theirs in parents.sharing(ours, others):
            _refuse_other_mode_or_flag(ours, f"network {other.network_id[:12]}", theirs.mode, theirs.flag)
        for mode in parents.modes_upon(ours, there):
            flag = (there.ipvlan_flag if there else None) or ours.flag
            _refuse_other_mode_or_flag(ours, "ipvlan links that spanlan did not make", mode, flag)

    def mac(self, network: Network, request: EndpointRequest, addresses: Sequence[IPAddress]) -> None:  # noqa: ARG002
        """None: a child has the MAC of its parent, and Docker must not be told any (protocol, gotcha G7)."""
        if request.mac is not None:
            raise Refuse(
                f"--mac-address {format_mac(request.mac)}: an ipvlan container has the MAC of its host's NIC; leave "
                "the option out, or use -o mode=macvlan"
            )

    def ground(self, segment: Segment, attachment: Attachment) -> LanGround:
        """As every LAN segment; in a routed one the routes in its subnets are ours."""
        ground = super().ground(segment, attachment)
        return replace(ground, routed=segment.pools) if _is_routed(attachment) else ground

    def remarks(self, segment: Segment, attachment: Attachment) -> tuple[str, ...]:
        """Which families of a routed segment the other hosts cannot reach this one's containers over, and the cure."""
        if not _is_routed(attachment):
            return ()
        reached = {address.version for address in attachment.underlay}
        return tuple(
            f"{attachment.interface} has no IPv{version} address, so the other hosts have no route to the IPv{version} "
            "addresses of containers here: give it one, in the LAN of the other hosts"
            for version in sorted({pool.version for pool in segment.pools} - reached)
        )

    def wanted(self, view: SegmentView, me: str, segment: Segment, attachment: Attachment, touched: Touched) -> Wanted:
        """In a routed segment also a route to each container of another host, by way of that host."""
        wanted = super().wanted(view, me, segment, attachment, touched)
        if _is_routed(attachment):
            for address in lan.addresses_within(segment, touched):
                if (hop := _by_way_of(view, me, address)) is not None or address not in wanted.routes:
                    wanted.routes[address] = hop
        return wanted

    def child(self, attachment: LanAttachment, name: str, alias: str, mac: Mac | None) -> IpvlanLink:  # noqa: ARG002
        """An ipvlan link of the parent's mode and flag; its MAC is the parent's."""
        return IpvlanLink(name, alias, attachment.parent, attachment.mode, attachment.flag, attachment.mtu)

    def handover(self, network: Network, endpoint: LocalEndpoint) -> Handover:
        """A child on the parent; in l3 and l3s with a default route that is the link itself."""
        attachment, link = lan.attachment_of(network.attachment), self.container_child(network, endpoint)
        if attachment.mode not in _ROUTED:
            return lan.with_gateways(network, endpoint, link)
        families = sorted({address.version for address in endpoint.addresses})
        leads_out = not (network.internal or attachment.isolated)
        return Handover(
            link=link,
            prefix=network.prefix,
            routes=tuple(StaticRoute(_DEFAULT_ROUTE[family]) for family in families) if leads_out else (),
            disable_gateway_service=True,
        )


def _refuse_other_mode_or_flag(ours: LanAttachment, who: str, mode: str, flag: str) -> None:
    if (mode, flag) != (ours.mode, ours.flag):
        raise Refuse(
            f"options ipvlan_mode={ours.mode}, ipvlan_flag={ours.flag}: {ours.parent} carries {who} with {mode} and "
            f"{flag}, and the kernel has one mode and flag a parent; give the same, or use another parent or a VLAN of "
            "it (-o vlan=)"
        )


def _is_routed(attachment: Attachment) -> bool:
    ours = lan.attachment_of(attachment)
    return ours.mode in _ROUTED and not ours.isolated


def _by_way_of(view: SegmentView, me: str, address: IPAddress) -> NextHop | None:
    """The host that has the container, as the next hop to it."""
    endpoint = view.endpoints.get(address)
    if endpoint is None or endpoint.host == me:
        return None
    return view.underlay_of(endpoint.host, address.version)
