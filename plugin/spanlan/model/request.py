"""What dockerd asks for, parsed: the values that pass from the door (``libnetwork``) to ``control``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface

from spanlan.model.address import IPAddress, IPNetwork
from spanlan.model.mac import Mac


@dataclass(frozen=True, slots=True)
class NetworkPool:
    """One entry of CreateNetwork's IPv4Data or IPv6Data.

    ``automatic``: nobody asked for this subnet; our IPAM chose it, for this host alone.
    """

    cidr: IPNetwork
    gateway: IPAddress | None = None
    auxiliary: Mapping[str, IPAddress] = field(default_factory=dict)
    automatic: bool = False


@dataclass(frozen=True, slots=True)
class NetworkRequest:
    """CreateNetwork.  ``options`` are the user's ``-o`` options, as text."""

    network_id: str
    options: Mapping[str, str]
    pools: tuple[NetworkPool, ...] = ()
    internal: bool = False


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """CreateEndpoint.  ``options`` are the flat per-endpoint driver options (``--driver-opt``), as text."""

    network_id: str
    endpoint_id: str
    address: IPv4Interface | None = None
    address6: IPv6Interface | None = None
    mac: Mac | None = None
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EndpointReply:
    """What CreateEndpoint adds: only what the request left empty may be filled in (protocol, gotcha G7)."""

    mac: Mac | None = None


@dataclass(frozen=True, slots=True)
class PoolRequest:
    """RequestPool.  ``cidr``: ``--subnet``; ``within``: ``--ip-range``; ``options``: ``--ipam-opt``."""

    cidr: IPNetwork | None
    within: IPNetwork | None
    options: Mapping[str, str]
    v6: bool


@dataclass(frozen=True, slots=True)
class PoolReply:
    """The pool that was granted, and the id by which dockerd names it from then on."""

    pool_id: str
    cidr: IPNetwork
