"""What macvlan and ipvlan have in common: a segment that is the physical LAN itself.

Such a segment needs no entries in the kernel: the switches find the way.  What it is for is that no address is given
out twice.  On a host it stands on a parent (:mod:`spanlan.drivers.parents`), and each container gets a child of it.

The host itself cannot reach its own children: the kernel passes no packet between a parent and its children.  With
``-o host_access=true`` the host gets a child of its own beside theirs, with an address of the segment, and a route to
each of its containers that leads there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spanlan import options
from spanlan.drivers import parents
from spanlan.drivers.base import NicNamed, Site
from spanlan.drivers.common import child_alias, child_name, digest, refuse_other_mode
from spanlan.errors import Broken, Refuse
from spanlan.model.address import IPAddress, IPNetwork, ip_address
from spanlan.model.cluster import Segment
from spanlan.model.host import (
    Attachment,
    ChildLink,
    Handover,
    HostLink,
    IsolatedLink,
    LanAttachment,
    LanGround,
    NextHop,
    Nic,
    OnLink,
    Parent,
    VlanLink,
    Wanted,
)
from spanlan.model.local import LocalEndpoint, Network
from spanlan.model.mac import Mac, derive_mac
from spanlan.model.request import NetworkRequest
from spanlan.model.view import SegmentView, Touched
from spanlan.options import option

SMALLEST_MTU, LARGEST_MTU = 68, 65535


def host_access(text: str) -> bool | tuple[IPAddress, ...]:
    """A parser for ``true``, ``false``, or the addresses that the host shall have, at most one a family."""
    try:
        return options.switch(text)
    except ValueError:
        pass
    try:
        addresses = tuple(ip_address(each) for each in text.split(","))
    except ValueError:
        addresses = ()
    if not addresses or len({address.version for address in addresses}) < len(addresses):
        raise ValueError("true, false, or the host's address on the segment (two, with a comma, for IPv4 and IPv6)")
    return addresses


host_access.values = "true, false, address"  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True, kw_only=True)
class LanOptions:
    """The ``-o`` options that both modes on the physical LAN have."""

    parent: str | None = option(
        parse=lambda text: text or None,
        default=None,
        default_text="none: the network stays on this host",
        values="interface, interface.VLAN, alias, auto",
        help="the NIC that the containers' interfaces sit on; auto is where the default route points; an alias is this "
        "host's own word for one (SPANLAN_PARENTS)",
    )
    vlan: tuple[int, ...] | None = option(
        parse=parents.vlan_ids,
        default=None,
        help="VLAN of the parent (802.1Q, and 802.1ad for the outer one of two); the link is made if it is missing, "
        "and removed with its last network",
    )
    vlan_qos: tuple[tuple[int, int], ...] | None = option(
        parse=parents.priorities, default=None, help="802.1p priority bits of what leaves through the VLAN"
    )
    segment: str | None = option(
        parse=options.name,
        default=None,
        default_text="named by the first subnet",
        help="networks of all hosts that name it share one set of addresses",
    )
    host_access: bool | tuple[IPAddress, ...] = option(
        parse=host_access,
        default=False,
        help="let this host and its containers reach each other; the host gets a free address, or this one",
    )
    mtu: int | None = option(
        parse=options.number(SMALLEST_MTU, LARGEST_MTU),
        default=None,
        default_text="the parent's",
        aliases=("com.docker.network.driver.mtu",),
        help="MTU of the containers' interfaces in bytes",
    )
    container_iface_prefix: str = option(
        parse=options.name,
        default="eth",
        aliases=("com.docker.network.container_iface_prefix",),
        help="how interfaces are named inside containers, before the number",
    )


class LanDriver:
    """The part of a driver that both modes on the physical LAN share."""

    mode: str
    options: type[LanOptions]

    def parse(self, given: Mapping[str, str]) -> Any:
        """The options of a network, in the driver's own set.  Raises Refuse that lists every mistake."""
        return options.parse(self.options, given)

    def segment_name(self, chosen: LanOptions, request: NetworkRequest) -> str:
        """The segment that the options name, or one named by the first subnet: addresses of it are given out once.

        A network without parent stays on its host, and shares its addresses with nobody.
        """
        if chosen.segment is not None:
            return chosen.segment
        if chosen.parent is None:
            return f"isolated.{request.network_id[:12]}"
        subnets = [pool.cidr for pool in request.pools if pool.cidr.prefixlen]
        for pool in request.pools:
            if pool.automatic:
                raise Refuse(
                    f"subnet {pool.cidr} was chosen for this host, and other hosts would get other ones: give the "
                    f"IPv{pool.cidr.version} --subnet that the LAN has, or let all hosts share a chosen one with -o "
                    "segment=NAME --ipam-opt segment=NAME"
                )
        if not subnets:
            raise Refuse("a network without a subnet needs a name that every host can see: add -o segment=NAME")
        return f"lan.{str(subnets[0]).replace('/', '-').replace(':', '_')}"

    def stands_on(self, chosen: LanOptions) -> NicNamed | None:
        """The NIC that must be looked at; None for a network that stays on this host."""
        return None if chosen.parent is None else NicNamed(chosen.parent)

    def vlan_of_name(self, chosen: LanOptions) -> LanOptions:
        """With ``parent=eth0.10`` written as ``parent=eth0`` and ``vlan=10``."""
        if chosen.parent is None:
            return chosen
        base, named = parents.split(chosen.parent)
        if named is None:
            return chosen
        if chosen.vlan not in {None, named}:
            raise Refuse(
                f"options parent={chosen.parent} and vlan={'.'.join(map(str, chosen.vlan or ()))} name different "
                "VLANs; give -o vlan= with the NIC itself as parent"
            )
        return replace(chosen, parent=base, vlan=named)

    def variant(self, chosen: LanOptions) -> str:  # noqa: ARG002 - a driver may have one
        """What beside the mode must be the same on every host."""
        return ""

    def propose(self, chosen: LanOptions, name: str, site: Site, free_vni: Callable[[], int]) -> Segment:  # noqa: ARG002
        """The segment as this host would found it."""
        return Segment(name, self.mode, self.variant(chosen))

    def check(self, chosen: LanOptions, segment: Segment, site: Site) -> None:  # noqa: ARG002 - attach looks at the NIC
        """Raise Refuse if the segment that is there is of another mode or variant."""
        refuse_other_mode(self.mode, segment)
        variant = self.variant(chosen)
        if segment.variant != variant:
            raise Refuse(
                f"option {self.mode}_mode={variant}: segment {segment.name} has {segment.variant}; give that, or "
                "choose another segment with -o segment=NAME"
            )

    def readdressed(self, segment: Segment, attachment: Attachment, addresses: Sequence[IPAddress]) -> LanAttachment:
        """The attachment, with what follows from the host's own addresses on the parent."""
        ours = attachment_of(attachment)
        if not ours.host_addresses:
            return ours
        beyond = tuple(pool for pool in segment.pools if not any(each in pool for each in addresses))
        return replace(ours, beyond=beyond)

    def prefix(self, chosen: LanOptions) -> str:
        """How interfaces are named inside containers."""
        return chosen.container_iface_prefix

    def child(self, attachment: LanAttachment, name: str, alias: str, mac: Mac | None) -> ChildLink:
        """A child of the driver's kind on the parent; ``mac`` where such a child has one of its own."""
        raise NotImplementedError

    def host_child(self, segment: Segment, attachment: LanAttachment) -> ChildLink:
        """The host's own child: its MAC is derived as those of containers are, so it keeps it."""
        mac = derive_mac(segment.name, attachment.host_addresses[0])
        return self.child(attachment, host_child_name(segment), host_child_alias(segment), mac)

    def container_child(self, network: Network, endpoint: LocalEndpoint) -> ChildLink:
        """The link that a container gets."""
        name, alias = child_name(endpoint.endpoint_id), child_alias(endpoint.endpoint_id)
        return self.child(attachment_of(network.attachment), name, alias, endpoint.mac)

    def ground(self, segment: Segment, attachment: Attachment) -> LanGround:
        """The parent's links, and the host's own child with what is routed through it."""
        ours = attachment_of(attachment)
        links = ours.links or (Nic(ours.parent),)
        if not ours.host_addresses:
            return LanGround(links)
        child = self.host_child(segment, ours)
        routes = [(subnet, self.through_host(segment, ours, subnet)) for subnet in ours.beyond]
        return LanGround(
            links,
            host=HostLink(child, ours.host_addresses),
            routed=segment.pools,
            subnets=tuple((subnet, hop) for subnet, hop in routes if hop is not None),
        )

    def remarks(self, segment: Segment, attachment: Attachment) -> tuple[str, ...]:  # noqa: ARG002
        """Nothing, where the LAN finds the way."""
        return ()

    def wanted(self, view: SegmentView, me: str, segment: Segment, attachment: Attachment, touched: Touched) -> Wanted:
        """A route to each container of this host through the host's own child; the LAN does the rest."""
        ours = attachment_of(attachment)
        if not ours.host_addresses:
            return Wanted()
        return Wanted(
            routes={
                address: self.through_host(segment, ours, address) if is_container(view, me, ours, address) else None
                for address in addresses_within(segment, touched)
            }
        )

    def through_host(self, segment: Segment, attachment: LanAttachment, to: IPAddress | IPNetwork) -> NextHop | None:
        """The way to a container of this host, or to a subnet, through the host's own child."""
        source = next((each for each in attachment.host_addresses if each.version == to.version), None)
        return None if source is None else OnLink(host_child_name(segment), source)


def attach(  # noqa: PLR0913 - what a child is, each by its name
    chosen: LanOptions, segment: Segment, nic: Parent | None, *, kind: str, mode: str, flag: str = ""
) -> LanAttachment:
    """How a host takes part: the link that children sit on, and the links of our own that are made for it.

    Raises Refuse for a parent that cannot carry them.
    """
    links: tuple[VlanLink | IsolatedLink, ...]
    if chosen.vlan_qos is not None and chosen.vlan is None:
        raise Refuse("option vlan_qos= needs a VLAN to set them in: add -o vlan=, with the NIC itself as parent")
    if nic is None:
        if chosen.vlan is not None:
            raise Refuse("option vlan= needs a NIC that carries the VLAN: add -o parent=INTERFACE")
        links = (parents.isolated_link(segment.name),)
        interface = links[0].name
    else:
        parents.refuse_unfit(nic)
        parents.refuse_other_mtu(chosen.mtu, nic)
        links = parents.vlan_links(nic, chosen.vlan or (), chosen.vlan_qos or ())
        interface = links[-1].name if links else nic.name
    return LanAttachment(interface, links, kind, mode, flag, mtu=chosen.mtu)


def addresses_within(segment: Segment, touched: Touched) -> list[IPAddress]:
    """What was touched in the subnets that the segment has on this host: elsewhere no route is ours to set.

    A network of another host may have added a subnet that no network of this host has.
    """
    return [address for address in touched.addresses if any(address in pool for pool in segment.pools)]


def is_container(view: SegmentView, host: str, attachment: LanAttachment, address: IPAddress) -> bool:
    """Whether the address is that of a container on ``host``, and not that of the host's own child."""
    endpoint = view.endpoints.get(address)
    return endpoint is not None and endpoint.host == host and address not in attachment.host_addresses


def with_gateways(network: Network, endpoint: LocalEndpoint, link: ChildLink) -> Handover:
    """A link with the gateways of the subnets that the endpoint's addresses are in; none for an internal network.

    Without a gateway dockerd would add a leg on ``docker_gwbridge``, which nobody expects of a NIC on the LAN.
    """
    gateways: dict[int, IPAddress] = {}
    if not (network.internal or attachment_of(network.attachment).isolated):
        for address in endpoint.addresses:
            for pool in network.pools:
                if pool.gateway is not None and pool.cidr.version == address.version and address in pool.cidr:
                    gateways[address.version] = pool.gateway
    return Handover(
        link=link,
        prefix=network.prefix,
        gateway=gateways.get(4),
        gateway6=gateways.get(6),
        disable_gateway_service=not gateways,
        announced=True,
    )


def attachment_of(attachment: Attachment) -> LanAttachment:
    """The attachment of a network on the LAN.  Raises Broken for one of another kind."""
    if not isinstance(attachment, LanAttachment):
        raise Broken(f"a segment on the LAN is not attached like this: {attachment!r}")
    return attachment


def parent_of(site: Site) -> Parent | None:
    """The parent that was looked at, None for a network that stays on its host."""
    if site is not None and not isinstance(site, Parent):
        raise Broken(f"a segment on the LAN stands on a parent, not on {site!r}")
    return site


def host_child_name(segment: Segment) -> str:
    """Name of the host's own child: ``slh-`` and a digest of the segment, 14 bytes."""
    return f"slh-{digest(segment.name)}"


def host_child_alias(segment: Segment) -> str:
    """The mark of the host's own child."""
    return f"spanlan host-access={segment.name}"


def refuse_no_way_to_the_host(chosen: LanOptions, kind: str, isolating: frozenset[str], mode: str) -> None:
    """Raise Refuse where host access is asked for and the children would not talk to the host's own one."""
    if chosen.host_access is not False and mode in isolating:
        raise Refuse(
            f"option host_access=true: {kind}={mode} keeps the children of a parent apart, the host's own among them; "
            f"give another {kind}, or leave host_access out"
        )
