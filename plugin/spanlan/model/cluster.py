"""What the store remembers: hosts, segments and the endpoints on them."""

from dataclasses import dataclass

from spanlan.model.address import IPAddress, IPNetwork
from spanlan.model.mac import Mac


@dataclass(frozen=True, slots=True)
class Host:
    """A host that runs an engine and a spanlan daemon.  Its record lives as long as its lease.

    ``instance`` tells two hosts apart that were given one name: it is made up once and kept in the state directory.
    """

    name: str
    version: str
    instance: str


@dataclass(frozen=True, slots=True)
class Segment:
    """The cluster-wide thing that networks of several engines attach to.

    ``vni``: RFC 7348 section 4.1, 1 to 2**24-1.  ``port``: UDP destination port of the tunnel.  ``mtu``: of the
    containers' interfaces, in bytes, the same on every host.  ``family``: 4 or 6, of the underlay.  ``pools``: the
    subnets of its networks, the same on every host, or containers would share a LAN and not reach each other.
    """

    name: str
    mode: str
    vni: int
    port: int
    mtu: int
    family: int
    pools: tuple[IPNetwork, ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """A host that takes part in a segment, the address of its VTEP there, and its networks on it (by NetworkID)."""

    segment: str
    host: str
    vtep: IPAddress
    networks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a container on a segment; a dual-stack container holds two, which share the MAC and the id."""

    segment: str
    address: IPAddress
    mac: Mac
    host: str
    endpoint_id: str
