"""VXLAN segments: one LAN over any IP network, without flooding.

Follow a packet from container a (on host A) to container b (on host B).  a asks "who has b?" by ARP or ND on its
macvlan child; the question reaches the VXLAN device below, where the kernel, acting as proxy, finds b among the
device's *neighbours* (address to MAC) and answers on the spot: nothing is sent.  a's frame to b's MAC comes down to the
same device, where the *FDB* (MAC to VTEP) says behind which host the MAC is, and leaves as UDP to that host (RFC 7348
section 5).  There the device hands it to the macvlan child that has the MAC.  Between containers of one host the
macvlan bridge carries the frame, and no table is asked.

So each host needs, per remote address, one permanent neighbour, and per remote MAC one permanent FDB entry.  Both
tables are written by spanlan alone (``nolearning``); an address in neither reaches nobody, which is what keeps ARP, ND
and unknown unicast off the wire.

Dropped designs: a bridge with veth pairs (half the packets a second, and cut dead by ``iptables -P FORWARD DROP``), and
flannel's routed subnet per host (an address could not move with its container).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from spanlan import options
from spanlan.drivers.base import Site, UnderlayNamed
from spanlan.drivers.common import child_alias, child_name, refuse_other_mode
from spanlan.errors import Broken, Refuse
from spanlan.model.address import IPAddress
from spanlan.model.cluster import Segment, Tunnel
from spanlan.model.host import Attachment, Handover, MacvlanLink, Parent, TunnelAttachment, Underlay, VxlanLink, Wanted
from spanlan.model.local import LocalEndpoint, Network
from spanlan.model.mac import Mac, derive_mac
from spanlan.model.request import EndpointRequest, NetworkRequest
from spanlan.model.view import SegmentView, Touched
from spanlan.options import option

# Bytes that the tunnel adds: outer IP header, UDP, VXLAN and the inner Ethernet header (RFC 7348 section 5).
OVERHEAD = {4: 20 + 8 + 8 + 14, 6: 40 + 8 + 8 + 14}
SMALLEST_MTU = {4: 68, 6: 1280}  # RFC 791; RFC 8200 section 5, which IPv6 containers need
LARGEST_MTU = 65535
LARGEST_VNI = 2**24 - 1
IANA_PORT = 4789


@dataclass(frozen=True, slots=True, kw_only=True)
class VxlanOptions:
    """The ``-o`` options of a VXLAN network."""

    mode: str = option(parse=options.choice("vxlan"), default="vxlan", help="kind of network")
    segment: str | None = option(
        parse=options.name,
        default=None,
        help="the segment to attach to: networks of all hosts that name it are one LAN; required unless vni is given",
    )
    vni: int | None = option(
        parse=options.number(1, LARGEST_VNI),
        default=None,
        default_text="the first free one of the cluster",
        help="VXLAN network identifier; alone it names the segment vniN",
    )
    vxlan_port: int | None = option(
        parse=options.number(1, 65535),
        default=None,
        default_text=str(IANA_PORT),
        help="UDP port of the tunnel, the same on all hosts of a segment",
    )
    mtu: int | None = option(
        parse=options.number(SMALLEST_MTU[4], LARGEST_MTU),
        default=None,
        default_text="the underlay's less 50 (IPv4) or 70 (IPv6)",
        aliases=("com.docker.network.driver.mtu",),
        help="MTU of the containers' interfaces in bytes, the same on all hosts of a segment",
    )
    parent: str | None = option(
        parse=str,
        default=None,
        default_text="SPANLAN_UNDERLAY",
        values="interface or address",
        help="the underlay: the interface that carries the tunnel, or one of its addresses",
    )
    ttl: int = option(
        parse=options.number(0, 255), default=0, help="TTL of the outer header; 0 leaves it to the kernel"
    )
    tos: int = option(
        parse=options.number(0, 255), default=0, help="TOS of the outer header; 1 copies that of the inner one"
    )
    udp_csum: bool = option(parse=options.switch, default=True, help="UDP checksums on the outer header")
    container_iface_prefix: str = option(
        parse=options.name,
        default="eth",
        aliases=("com.docker.network.container_iface_prefix",),
        help="how interfaces are named inside containers, before the number",
    )


class VxlanDriver:
    """The vxlan mode."""

    mode = "vxlan"
    options = VxlanOptions

    def parse(self, given: Mapping[str, str]) -> VxlanOptions:
        """The options of a network.  Raises Refuse that lists every mistake."""
        chosen = options.parse(VxlanOptions, given)
        if chosen.segment is None and chosen.vni is None:
            on_lan = "; for a network on the LAN itself add -o mode=macvlan or -o mode=ipvlan" if chosen.parent else ""
            raise Refuse(
                "a VXLAN network needs a name that every host can see: add -o segment=NAME (the same on every host), "
                f"or -o vni=NUMBER{on_lan}"
            )
        return chosen

    def segment_name(self, chosen: VxlanOptions, request: NetworkRequest) -> str:  # noqa: ARG002 - the options say it
        """The segment that the options name."""
        return chosen.segment if chosen.segment is not None else f"vni{chosen.vni}"

    def stands_on(self, chosen: VxlanOptions) -> UnderlayNamed:
        """The underlay that the options name, or the host's own choice."""
        return UnderlayNamed(chosen.parent)

    def vlan_of_name(self, chosen: VxlanOptions) -> VxlanOptions:
        """Unchanged: a tunnel leaves by the interface that is there."""
        return chosen

    def prefix(self, chosen: VxlanOptions) -> str:
        """How interfaces are named inside containers."""
        return chosen.container_iface_prefix

    def propose(self, chosen: VxlanOptions, name: str, site: Site, free_vni: Callable[[], int]) -> Segment:
        """The segment as this host would found it, with a free VNI where the options name none."""
        underlay = _underlay(site)
        family = _first_address(underlay).version
        tunnel = Tunnel(
            vni=free_vni() if chosen.vni is None else chosen.vni,
            port=IANA_PORT if chosen.vxlan_port is None else chosen.vxlan_port,
            mtu=underlay.mtu - OVERHEAD[family] if chosen.mtu is None else chosen.mtu,
            family=family,
        )
        segment = Segment(name, self.mode, tunnel=tunnel)
        self.check(chosen, segment, underlay)
        return segment

    def check(self, chosen: VxlanOptions, segment: Segment, site: Site) -> None:
        """Raise Refuse if the options contradict the segment, or if its packets do not fit this host's underlay."""
        underlay = _underlay(site)
        refuse_other_mode(chosen.mode, segment)
        tunnel = tunnel_of(segment)
        mistakes = [
            f"option {name}={given}: segment {segment.name} has {name} {there}; leave the option out to take it, "
            "or choose another segment"
            for name, given, there in (
                ("vni", chosen.vni, tunnel.vni),
                ("vxlan_port", chosen.vxlan_port, tunnel.port),
                ("mtu", chosen.mtu, tunnel.mtu),
            )
            if given is not None and given != there
        ]
        room = underlay.mtu - OVERHEAD[tunnel.family]
        if tunnel.mtu > room:
            mistakes.append(
                f"mtu {tunnel.mtu} of segment {segment.name} does not fit {underlay.interface}: its MTU is "
                f"{underlay.mtu}, which leaves {room} inside the tunnel; create the segment with -o mtu={room} "
                f"or raise the MTU of {underlay.interface} to {tunnel.mtu + OVERHEAD[tunnel.family]}"
            )
        if mistakes:
            raise Refuse("; ".join(mistakes))

    def attach(self, chosen: VxlanOptions, segment: Segment, site: Site) -> TunnelAttachment:
        """How this host takes part: with the underlay's first address of the segment's family."""
        underlay, family = _underlay(site), tunnel_of(segment).family
        for address in underlay.addresses:
            if address.version == family:
                return TunnelAttachment(
                    interface=underlay.interface,
                    vtep=address,
                    ttl=chosen.ttl,
                    tos=chosen.tos,
                    udp_csum=chosen.udp_csum,
                )
        raise Refuse(
            f"segment {segment.name} runs over IPv{family}, and {underlay.interface} has no such address: "
            f"give it one, or name another underlay with -o parent=INTERFACE"
        )

    def readdressed(self, segment: Segment, attachment: Attachment, addresses: Sequence[IPAddress]) -> TunnelAttachment:
        """The attachment with a VTEP that is there, if there is one: a DHCP server may have given another address."""
        ours = _ours(attachment)
        present = [address for address in addresses if address.version == tunnel_of(segment).family]
        return ours if ours.vtep in present or not present else replace(ours, vtep=present[0])

    def refuse_beside(self, attachment: Attachment, others: Sequence[Network], there: Parent | None = None) -> None:
        """Tunnels do not mind each other: each has a VNI of its own."""

    def ground(self, segment: Segment, attachment: Attachment) -> VxlanLink:
        """The VXLAN device of the segment on this host."""
        ours, tunnel = _ours(attachment), tunnel_of(segment)
        return VxlanLink(
            name=device_name(segment),
            alias=f"spanlan segment={segment.name}",
            vni=tunnel.vni,
            port=tunnel.port,
            local=ours.vtep,
            parent=ours.interface,
            mtu=tunnel.mtu,
            ttl=ours.ttl,
            tos=ours.tos,
            udp_csum=ours.udp_csum,
        )

    def remarks(self, segment: Segment, attachment: Attachment) -> tuple[str, ...]:  # noqa: ARG002
        """Nothing: an attachment without a VTEP cannot be made."""
        return ()

    def wanted(
        self,
        view: SegmentView,
        me: str,
        segment: Segment,  # noqa: ARG002 - all that matters is in the view
        attachment: Attachment,  # noqa: ARG002
        touched: Touched,
    ) -> Wanted:
        """A neighbour for each remote address, and an FDB entry for each remote MAC."""
        return Wanted(
            neighbours={address: self.neighbour(view, me, address) for address in touched.addresses},
            fdb={mac: self.fdb(view, me, mac) for mac in touched.macs},
        )

    def neighbour(self, view: SegmentView, me: str, address: IPAddress) -> Mac | None:
        """The MAC of a remote endpoint that can be reached; none for this host's own, which macvlan carries."""
        endpoint = view.endpoints.get(address)
        if endpoint is None or endpoint.host == me or view.underlay_of(endpoint.host) is None:
            return None
        return endpoint.mac

    def fdb(self, view: SegmentView, me: str, mac: Mac) -> IPAddress | None:
        """The VTEP behind which a MAC is: the first holder that can be reached decides."""
        for endpoint in view.holders_of(mac):
            if endpoint.host != me and (vtep := view.underlay_of(endpoint.host)) is not None:
                return vtep
        return None

    def mac(self, network: Network, request: EndpointRequest, addresses: Sequence[IPAddress]) -> Mac:
        """The MAC that was asked for, or one derived from the segment and the first address."""
        return request.mac or derive_mac(network.segment.name, addresses[0])

    def handover(self, network: Network, endpoint: LocalEndpoint) -> Handover:
        """A macvlan child, and no gateway: dockerd adds its own leg for egress unless the network is internal."""
        return Handover(
            link=MacvlanLink(
                name=child_name(endpoint.endpoint_id),
                alias=child_alias(endpoint.endpoint_id),
                parent=device_name(network.segment),
                mac=endpoint.mac,
                mtu=tunnel_of(network.segment).mtu,
            ),
            prefix=network.prefix,
        )


def device_name(segment: Segment) -> str:
    """Name of a segment's device: ``slx-`` and the VNI, at most 12 bytes."""
    return f"slx-{tunnel_of(segment).vni}"


def tunnel_of(segment: Segment) -> Tunnel:
    """The segment's tunnel.  Raises Broken if the record in the store has none."""
    if segment.tunnel is None:
        raise Broken(f"segment {segment.name} is of mode {segment.mode} and has no tunnel in the store")
    return segment.tunnel


def _underlay(site: Site) -> Underlay:
    if not isinstance(site, Underlay):
        raise Broken(f"a tunnel stands on an underlay, not on {site!r}")
    return site


def _ours(attachment: Attachment) -> TunnelAttachment:
    if not isinstance(attachment, TunnelAttachment):
        raise Broken(f"a VXLAN segment is not attached like this: {attachment!r}")
    return attachment


def _first_address(underlay: Underlay) -> IPAddress:
    if not underlay.addresses:
        raise Refuse(
            f"{underlay.interface} has no address to send tunnels from: give it one, or name another underlay "
            "with -o parent=INTERFACE"
        )
    return underlay.addresses[0]
