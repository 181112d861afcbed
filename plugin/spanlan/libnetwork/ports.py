"""The two doors' other side: what dockerd's requests need from the rest of spanlan.

``control`` implements both protocols; this room only calls them.  Every method is idempotent by the ids it is given,
because dockerd repeats requests (protocol, gotcha G4), and may raise the errors of ``spanlan.errors``: ``Refuse`` for
what the user must change, ``Retry`` for what cannot be done now, ``Gone`` for an object that is not there (success in a
removal), ``Broken`` for everything that a person must look at.  Each call runs under a deadline (``spanlan.deadline``).
"""

from collections.abc import Callable, Mapping
from ipaddress import IPv4Interface, IPv6Interface
from typing import Protocol

from spanlan.model.address import IPAddress
from spanlan.model.host import Handover
from spanlan.model.request import EndpointReply, EndpointRequest, NetworkRequest, PoolReply, PoolRequest

Observe = Callable[[str, float, str], None]
"""Told of every answered request: the method (``NetworkDriver.Join``), the seconds it took, and its outcome."""


class NetworkDriver(Protocol):
    """The network half: networks, their endpoints, and the link that a sandbox gets (libnetwork's remote driver)."""

    def create_network(self, request: NetworkRequest) -> None:
        """Remember the network and check that this host can carry it.  A repeated NetworkID is success."""

    def delete_network(self, network_id: str) -> None:
        """Forget the network.  Its addresses were released before (dockerd undoes IPAM first)."""

    def create_endpoint(self, request: EndpointRequest) -> EndpointReply:
        """Publish the endpoint to the cluster.  dockerd calls this one at a time per network: it must be quick."""

    def delete_endpoint(self, network_id: str, endpoint_id: str) -> None:
        """Withdraw the endpoint and delete its link, which is back in the host's namespace by now."""

    def endpoint_info(self, network_id: str, endpoint_id: str) -> Mapping[str, str]:
        """What a person may like to know about the endpoint; dockerd only shows it."""

    def join(self, network_id: str, endpoint_id: str, sandbox: str) -> Handover:
        """Make the link that dockerd moves into the sandbox.  dockerd calls this in parallel: slow work goes here."""

    def leave(self, network_id: str, endpoint_id: str) -> None:
        """The endpoint leaves its sandbox.  The link is still in there and must not be touched."""


class IpamDriver(Protocol):
    """The address half: pools, and addresses out of them.  Its requests name neither network nor container."""

    def request_pool(self, request: PoolRequest) -> PoolReply:
        """Grant the pool that was asked for, or choose one when ``request.cidr`` is None: a new one each time."""

    def release_pool(self, pool_id: str) -> None:
        """This engine needs the pool no longer."""

    def request_address(
        self, pool_id: str, address: IPAddress | None, *, gateway: bool
    ) -> IPv4Interface | IPv6Interface:
        """Hold ``address``, or any free one when it is None.  ``gateway``: it is to be the network's gateway."""

    def release_address(self, pool_id: str, address: IPAddress) -> None:
        """The address is free again."""
