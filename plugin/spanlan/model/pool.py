"""What the address half (IPAM) remembers: pools, and the addresses of a pool that are in use."""

from dataclasses import dataclass
from enum import StrEnum

from spanlan.model.address import IPAddress, IPNetwork


class AddressKind(StrEnum):
    """What an address is held for.  Gateways and auxiliary addresses are shared by hosts, an endpoint's never is."""

    GATEWAY = "gateway"
    AUXILIARY = "auxiliary"
    ENDPOINT = "endpoint"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a pool or an address: a host, and the nonce of the RequestPool by which it came to the pool."""

    host: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool in use.

    ``space``: the cluster's address space or a segment's own (``store.keys.space_of``).  ``gateway``: the address
    that a host gets as its gateway when it names none; empty until the first gateway is reserved.
    """

    space: str
    cidr: IPNetwork
    holders: tuple[Holder, ...]
    gateway: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class HeldAddress:
    """An address in use.  ``claim`` is unique per reservation: a later holder of the same address has another one."""

    address: IPAddress
    kind: AddressKind
    holders: tuple[Holder, ...]
    claim: str


@dataclass(frozen=True, slots=True)
class Release:
    """A release that may be carried out now or later, and more than once, without harm to newer claims.

    ``address``: None releases the pool itself.  ``claim``: of the reservation that is meant, None where it is unknown
    (it was made before the daemon started).
    """

    pool_id: str
    address: IPAddress | None = None
    claim: str | None = None
