"""What this host must remember by itself, by the ids that its engine uses."""

from dataclasses import dataclass

from spanlan.model.address import IPAddress
from spanlan.model.cluster import Segment
from spanlan.model.host import Attachment
from spanlan.model.mac import Mac
from spanlan.model.request import NetworkPool


@dataclass(frozen=True, slots=True)
class Network:
    """A network of this host's engine, and the segment that it attaches to.

    ``pools``: the subnets as this engine was given them, with the gateways that are this network's own.  ``holds``: ids
    of the holds on pools that the host's own addresses on the segment were taken from.
    """

    network_id: str
    segment: Segment
    attachment: Attachment
    prefix: str
    internal: bool
    pools: tuple[NetworkPool, ...] = ()
    holds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """An endpoint of this host's engine."""

    endpoint_id: str
    network_id: str
    segment: str
    addresses: tuple[IPAddress, ...]
    mac: Mac | None
