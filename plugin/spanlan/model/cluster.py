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
class Tunnel:
    """What all hosts of a VXLAN segment must agree on.

    ``vni``: RFC 7348 section 4.1, 1 to 2**24-1.  ``port``: UDP destination port.  ``mtu``: of the containers'
    interfaces, in bytes.  ``family``: 4 or 6, of the underlay.
    """

    vni: int
    port: int
    mtu: int
    family: int


@dataclass(frozen=True, slots=True)
class Segment:
    """The cluster-wide thing that networks of several engines attach to.

    ``variant``: what beside the mode must be the same on every host (ipvlan's l2 and l3 do not reach each other); empty
    where nothing is.  ``tunnel``: of a VXLAN segment.  ``pools``: the subnets of its networks, the same on every host,
    or containers would share a LAN and not reach each other.
    """

    name: str
    mode: str
    variant: str = ""
    tunnel: Tunnel | None = None
    pools: tuple[IPNetwork, ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """A host that takes part in a segment, and its networks on it (by NetworkID).

    ``underlay``: the addresses by which the others reach its containers: its VTEP on a VXLAN segment, a next hop a
    family on a routed one, none where the LAN finds the way.
    """

    segment: str
    host: str
    underlay: tuple[IPAddress, ...]
    networks: tuple[str, ...]


HOSTS_OWN = "host-access."


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a container on a segment; a dual-stack container holds two, which share the MAC and the id.

    ``mac``: None where the link has that of its host (ipvlan, macvlan passthru).  The host's own place on a segment is
    an endpoint too, whose id begins with :data:`HOSTS_OWN`.
    """

    segment: str
    address: IPAddress
    mac: Mac | None
    host: str
    endpoint_id: str

    def __str__(self) -> str:
        """Who has the address, as messages say it."""
        if self.endpoint_id.startswith(HOSTS_OWN):
            return f"the host {self.host} itself (host_access)"
        return f"endpoint {self.endpoint_id[:12]} on host {self.host}"
