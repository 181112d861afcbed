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

from collections.abc import Mapping
from dataclasses import dataclass

from spanlan import options
from spanlan.errors import Refuse
from spanlan.model.address import IPAddress
from spanlan.model.cluster import Segment
from spanlan.model.host import Attachment, Handover, MacvlanLink, Underlay, VxlanLink
from spanlan.model.local import LocalEndpoint, Network
from spanlan.model.mac import Mac
from spanlan.model.view import SegmentView
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
            raise Refuse(
                "a VXLAN network needs a name that every host can see: add -o segment=NAME (the same on every host), "
                "or -o vni=NUMBER"
            )
        return chosen

    def segment_name(self, chosen: VxlanOptions) -> str:
        """The segment that the options name."""
        return chosen.segment if chosen.segment is not None else f"vni{chosen.vni}"

    def parent(self, chosen: VxlanOptions) -> str | None:
        """The underlay that the options name."""
        return chosen.parent

    def prefix(self, chosen: VxlanOptions) -> str:
        """How interfaces are named inside containers."""
        return chosen.container_iface_prefix

    def propose(self, chosen: VxlanOptions, underlay: Underlay, vni: int) -> Segment:
        """The segment as this host would found it, with ``vni`` where the options name none."""
        family = _first_address(underlay).version
        room = underlay.mtu - OVERHEAD[family]
        segment = Segment(
            name=self.segment_name(chosen),
            mode=self.mode,
            vni=vni if chosen.vni is None else chosen.vni,
            port=IANA_PORT if chosen.vxlan_port is None else chosen.vxlan_port,
            mtu=room if chosen.mtu is None else chosen.mtu,
            family=family,
        )
        self.check(chosen, segment, underlay)
        return segment

    def check(self, chosen: VxlanOptions, segment: Segment, underlay: Underlay) -> None:
        """Raise Refuse if the options contradict the segment, or if its packets do not fit this host's underlay."""
        mistakes = [
            f"option {name}={given}: segment {segment.name} has {name} {there}; leave the option out to take it, "
            "or choose another segment"
            for name, given, there in (
                ("mode", chosen.mode, segment.mode),
                ("vni", chosen.vni, segment.vni),
                ("vxlan_port", chosen.vxlan_port, segment.port),
                ("mtu", chosen.mtu, segment.mtu),
            )
            if given is not None and given != there
        ]
        room = underlay.mtu - OVERHEAD[segment.family]
        if segment.mtu > room:
            mistakes.append(
                f"mtu {segment.mtu} of segment {segment.name} does not fit {underlay.interface}: its MTU is "
                f"{underlay.mtu}, which leaves {room} inside the tunnel; create the segment with -o mtu={room} "
                f"or raise the MTU of {underlay.interface} to {segment.mtu + OVERHEAD[segment.family]}"
            )
        if mistakes:
            raise Refuse("; ".join(mistakes))

    def attach(self, chosen: VxlanOptions, segment: Segment, underlay: Underlay) -> Attachment:
        """How this host takes part: with the underlay's first address of the segment's family."""
        for address in underlay.addresses:
            if address.version == segment.family:
                return Attachment(
                    interface=underlay.interface,
                    vtep=address,
                    ttl=chosen.ttl,
                    tos=chosen.tos,
                    udp_csum=chosen.udp_csum,
                )
        raise Refuse(
            f"segment {segment.name} runs over IPv{segment.family}, and {underlay.interface} has no such address: "
            f"give it one, or name another underlay with -o parent=INTERFACE"
        )

    def device(self, segment: Segment, attachment: Attachment) -> VxlanLink:
        """The VXLAN device of the segment on this host."""
        return VxlanLink(
            name=device_name(segment),
            alias=f"spanlan segment={segment.name}",
            vni=segment.vni,
            port=segment.port,
            local=attachment.vtep,
            parent=attachment.interface,
            mtu=segment.mtu,
            ttl=attachment.ttl,
            tos=attachment.tos,
            udp_csum=attachment.udp_csum,
        )

    def neighbour(self, view: SegmentView, me: str, address: IPAddress) -> Mac | None:
        """The MAC of a remote endpoint that can be reached; none for this host's own, which macvlan carries."""
        endpoint = view.endpoints.get(address)
        if endpoint is None or endpoint.host == me or view.vtep_of(endpoint.host) is None:
            return None
        return endpoint.mac

    def fdb(self, view: SegmentView, me: str, mac: Mac) -> IPAddress | None:
        """The VTEP behind which a MAC is: the first holder that can be reached decides."""
        for endpoint in view.holders_of(mac):
            if endpoint.host != me and (vtep := view.vtep_of(endpoint.host)) is not None:
                return vtep
        return None

    def handover(self, network: Network, endpoint: LocalEndpoint) -> Handover:
        """A macvlan child, and no gateway: dockerd adds its own leg for egress unless the network is internal."""
        return Handover(
            link=MacvlanLink(
                name=child_name(endpoint.endpoint_id),
                alias=f"spanlan endpoint={endpoint.endpoint_id}",
                parent=device_name(network.segment),
                mac=endpoint.mac,
                mtu=network.segment.mtu,
            ),
            prefix=network.prefix,
        )


def device_name(segment: Segment) -> str:
    """Name of a segment's device: ``slx-`` and the VNI, at most 12 bytes."""
    return f"slx-{segment.vni}"


def child_name(endpoint_id: str) -> str:
    """Name of an endpoint's link while it is in the host's namespace: 15 bytes, the most that Linux takes."""
    return f"sle-{endpoint_id[:11]}"


def _first_address(underlay: Underlay) -> IPAddress:
    if not underlay.addresses:
        raise Refuse(
            f"{underlay.interface} has no address to send tunnels from: give it one, or name another underlay "
            "with -o parent=INTERFACE"
        )
    return underlay.addresses[0]
