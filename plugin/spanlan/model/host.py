"""What this host's kernel holds for spanlan."""

from dataclasses import dataclass, field

from spanlan.model.address import IPAddress, IPNetwork
from spanlan.model.mac import Mac


@dataclass(frozen=True, slots=True)
class VxlanLink:
    """A VXLAN device, ``nolearning proxy`` (ip-link(8)): its FDB and neighbours are written by us alone.

    ``name``: at most 15 bytes.  ``alias``: the mark by which a daemon without memory knows the device as ours.
    ``parent``: name of the underlay's interface.  ``ttl`` and ``tos``: of the outer header, 0 for the kernel's choice
    (``tos`` 1 copies the inner one).  ``mtu``: bytes of the inner packet.
    """

    name: str
    alias: str
    vni: int
    port: int
    local: IPAddress
    parent: str
    mtu: int
    ttl: int = 0
    tos: int = 0
    udp_csum: bool = True


@dataclass(frozen=True, slots=True)
class VlanLink:
    """A VLAN sub-interface of a NIC (IEEE 802.1Q), made on demand and shared by all networks that name it.

    ``protocol``: ``802.1q``, or ``802.1ad`` for the outer tag of QinQ.  ``egress_qos``: pairs of the packet's priority
    and the priority bits (PCP, 0 to 7) that go on the wire.
    """

    name: str
    alias: str
    parent: str
    vlan: int
    protocol: str = "802.1q"
    egress_qos: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class IsolatedLink:
    """A link that leads nowhere: the parent of a network that names none, so that it stays on this host.

    ``mtu`` in bytes: what its children get, unless they ask for less.
    """

    name: str
    alias: str
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class Nic:
    """A link of the host's own that a network uses as parent: looked at, never changed."""

    name: str


ParentLink = VlanLink | IsolatedLink | Nic


@dataclass(frozen=True, slots=True)
class MacvlanLink:
    """A macvlan child of ``parent``: the link that a container gets.

    It is handed over to the sandbox at Join and comes back under the same name between Leave and DeleteEndpoint.
    ``mode``: bridge, private, vepa or passthru.  ``mac``: None takes a random one; with passthru it must be None,
    because there the child's MAC and the parent's are one.  ``mtu`` in bytes; None takes the parent's.
    """

    name: str
    alias: str
    parent: str
    mac: Mac | None
    mtu: int | None
    mode: str = "bridge"


@dataclass(frozen=True, slots=True)
class IpvlanLink:
    """An ipvlan child of ``parent``, handed over as a macvlan child is; it has its parent's MAC.

    ``mode`` (l2, l3, l3s) and ``flag`` (bridge, private, vepa) belong, in the kernel, to the parent: a child that asks
    for others changes them for all.  ``mtu`` in bytes; None takes the parent's.
    """

    name: str
    alias: str
    parent: str
    mode: str
    flag: str
    mtu: int | None


ChildLink = MacvlanLink | IpvlanLink


@dataclass(frozen=True, slots=True)
class HostLink:
    """A child of our own beside those of the containers, through which the host reaches them and they the host.

    The kernel lets no packet pass between a parent and its children, so the host needs a child like theirs.
    ``addresses``: at most one a family; they belong to the host alone (prefix length 32 or 128) and bring no route.
    """

    child: ChildLink
    addresses: tuple[IPAddress, ...]


@dataclass(frozen=True, slots=True)
class Parent:
    """What there is to know of a NIC before children are put on it.

    ``name``: its present one, also if it was asked for by an alternative name.  ``kind``: the kernel's word (vlan,
    bridge, dummy, veth …), empty for hardware.  ``up``: as the host's administrator set it; ``carrier``: whether there
    is a cable, a peer.  ``ethernet``: whether its frames have MAC addresses.  ``master``: the bridge or bond that the
    link is a port of.  ``below``: the link under it, of a VLAN, macvlan or ipvlan link.  ``vlan`` and
    ``vlan_protocol`` (802.1q, 802.1ad): of a VLAN link.  ``children``: kind (macvlan, ipvlan) and mode of links that
    sit on it already, also of those that were handed over to containers; ``ipvlan_flag``: of the parent, if it has
    ipvlan children.  ``ours``: made by spanlan.
    """

    name: str
    index: int
    kind: str
    mtu: int
    up: bool
    loopback: bool
    wireless: bool
    master: str | None
    vlan: int | None
    children: frozenset[tuple[str, str]]
    ipvlan_flag: str | None = None
    mac: Mac | None = None
    carrier: bool = True
    ethernet: bool = True
    below: str | None = None
    vlan_protocol: str | None = None
    ours: bool = False


@dataclass(frozen=True, slots=True)
class OnLink:
    """Where a route leads that needs no next hop: its destination is on the link ``interface``.

    ``source``: the host's own address that its packets to there start from; None for the kernel's choice.
    """

    interface: str
    source: IPAddress | None = None


NextHop = IPAddress | OnLink


@dataclass(frozen=True, slots=True)
class Overlay:
    """All that one segment needs in this host's kernel: the device, and a permanent entry per remote address and MAC.

    ``neighbours``: address to MAC, answered by the proxy instead of flooding (RFC 7348 section 4.2 uses multicast).
    ``fdb``: MAC to the VTEP it is behind.
    """

    link: VxlanLink
    neighbours: dict[IPAddress, Mac] = field(default_factory=dict)
    fdb: dict[Mac, IPAddress] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LanGround:
    """What a segment on the physical LAN stands on in this host's kernel.

    ``links``: at least one, in the order in which they stand on each other (two VLAN links for QinQ); the last carries
    the children.  ``host``: the host's own child, if it takes part.  ``routed``: the subnets in which routes with our
    protocol number are this segment's alone; empty if it needs none.  ``subnets``: routes to whole subnets.
    """

    links: tuple[ParentLink, ...]
    host: HostLink | None = None
    routed: tuple[IPNetwork, ...] = ()
    subnets: tuple[tuple[IPNetwork, NextHop], ...] = ()


Ground = VxlanLink | LanGround


def main_link(ground: Ground) -> str:
    """The name of the link that the children sit on."""
    return ground.name if isinstance(ground, VxlanLink) else ground.links[-1].name


def own_links(ground: Ground) -> tuple[str, ...]:
    """The names of the links that are made for a segment: not those of the host."""
    if isinstance(ground, VxlanLink):
        return (ground.name,)
    links = tuple(link.name for link in ground.links if not isinstance(link, Nic))
    return links if ground.host is None else (*links, ground.host.child.name)


def routed_in(ground: Ground) -> tuple[IPNetwork, ...]:
    """The subnets in which routes with our protocol number are this segment's."""
    return () if isinstance(ground, VxlanLink) else ground.routed


@dataclass(slots=True)
class Wanted:
    """Entries that a segment wants from now on, by their keys in the kernel; None: no such entry (any more).

    ``neighbours`` and ``fdb`` are a tunnel's, ``routes`` (to single addresses) those of a segment on the LAN.
    """

    neighbours: dict[IPAddress, Mac | None] = field(default_factory=dict)
    fdb: dict[Mac, IPAddress | None] = field(default_factory=dict)
    routes: dict[IPAddress, NextHop | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StaticRoute:
    """A route inside the sandbox; without ``via`` the destination is on the link itself (RouteType 1)."""

    destination: IPNetwork
    via: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class Handover:
    """What Join gives to dockerd: a link, how to name it inside the sandbox, and what the sandbox needs beside it.

    ``gateway``: none makes dockerd add a leg on ``docker_gwbridge`` (unless the network is internal, or
    ``disable_gateway_service`` says that none is wanted).  ``announced``: whether neighbours on the LAN must be told
    that the addresses are here now.
    """

    link: ChildLink
    prefix: str = "eth"
    gateway: IPAddress | None = None
    gateway6: IPAddress | None = None
    routes: tuple[StaticRoute, ...] = ()
    disable_gateway_service: bool = False
    announced: bool = False


@dataclass(frozen=True, slots=True)
class Underlay:
    """Where tunnels start: the interface, its MTU in bytes, and its global addresses, the preferred ones first."""

    interface: str
    mtu: int
    addresses: tuple[IPAddress, ...]


@dataclass(frozen=True, slots=True)
class TunnelAttachment:
    """How this host takes part in a VXLAN segment: the choices that each host makes for itself."""

    interface: str
    vtep: IPAddress
    ttl: int = 0
    tos: int = 0
    udp_csum: bool = True

    @property
    def underlay(self) -> tuple[IPAddress, ...]:
        """By what the other hosts reach the containers of this one."""
        return (self.vtep,)


@dataclass(frozen=True, slots=True)
class LanAttachment:
    """How this host takes part in a segment on the physical LAN.

    ``parent``: the link that carries the children.  ``links``: those of our own under them (a VLAN, two for QinQ, or an
    isolated link); empty if the parent is the host's.  ``mode`` and ``flag``: of the children, in the kernel's words.
    ``mtu``: of the children in bytes; None takes the parent's.  ``next_hops``: the host's addresses on the parent, by
    which the others route to its containers (at most one a family).  ``host_addresses``: of the host's own child.
    ``beyond``: the subnets of the segment in which the host has no address, and which it reaches by that child alone.
    """

    parent: str
    links: tuple[VlanLink | IsolatedLink, ...]
    kind: str
    mode: str
    flag: str = ""
    mtu: int | None = None
    next_hops: tuple[IPAddress, ...] = ()
    host_addresses: tuple[IPAddress, ...] = ()
    beyond: tuple[IPNetwork, ...] = ()

    @property
    def interface(self) -> str:
        """The link whose addresses are this host's on the segment."""
        return self.parent

    @property
    def underlay(self) -> tuple[IPAddress, ...]:
        """By what the other hosts reach the containers of this one; nothing where the LAN finds the way."""
        return self.next_hops

    @property
    def isolated(self) -> bool:
        """Whether nothing leaves this host."""
        return any(isinstance(link, IsolatedLink) for link in self.links)


Attachment = TunnelAttachment | LanAttachment
