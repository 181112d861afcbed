"""What this host's kernel holds for spanlan."""

from dataclasses import dataclass, field

from spanlan.model.address import IPAddress
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
class MacvlanLink:
    """A macvlan child (mode bridge) of ``parent``: the link that a container gets.

    It is handed over to the sandbox at Join and comes back under the same name between Leave and DeleteEndpoint.
    """

    name: str
    alias: str
    parent: str
    mac: Mac
    mtu: int


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
class Handover:
    """What Join gives to dockerd: a link, how to name it inside the sandbox, and what the sandbox needs beside it.

    ``gateway``: none makes dockerd add a leg on ``docker_gwbridge`` (unless the network is internal).
    """

    link: MacvlanLink
    prefix: str = "eth"
    gateway: IPAddress | None = None
    gateway6: IPAddress | None = None
    disable_gateway_service: bool = False


@dataclass(frozen=True, slots=True)
class Underlay:
    """Where tunnels start: the interface, its MTU in bytes, and its global addresses, the preferred ones first."""

    interface: str
    mtu: int
    addresses: tuple[IPAddress, ...]


@dataclass(frozen=True, slots=True)
class Attachment:
    """How this host takes part in a segment: the choices that each host makes for itself."""

    interface: str
    vtep: IPAddress
    ttl: int = 0
    tos: int = 0
    udp_csum: bool = True
