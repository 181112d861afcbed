"""What the door (``libnetwork``) calls: the two halves of the plugin, each behind one object."""

from collections.abc import Mapping
from ipaddress import IPv4Interface, IPv6Interface

from spanlan.control.debts import Debts
from spanlan.control.endpoints import Endpoints
from spanlan.control.ipam import Ipam
from spanlan.control.liveness import Liveness
from spanlan.control.networks import Networks
from spanlan.control.releases import releasing
from spanlan.model.address import IPAddress
from spanlan.model.host import Handover
from spanlan.model.pool import Release
from spanlan.model.request import EndpointReply, EndpointRequest, NetworkRequest, PoolReply, PoolRequest


class NetworkService:
    """The NetworkDriver half (protocol section 1.3)."""

    def __init__(self, networks: Networks, endpoints: Endpoints, liveness: Liveness) -> None:
        self._networks = networks
        self._endpoints = endpoints
        self._liveness = liveness

    def create_network(self, request: NetworkRequest) -> None:
        """Attach a network to its segment."""
        self._liveness.refuse_namesake()
        self._networks.create(request)

    def delete_network(self, network_id: str) -> None:
        """Detach it."""
        self._endpoints.delete_all(network_id)
        self._networks.delete(network_id)

    def create_endpoint(self, request: EndpointRequest) -> EndpointReply:
        """Claim and publish an endpoint."""
        self._liveness.refuse_namesake()
        return self._endpoints.create(request)

    def delete_endpoint(self, network_id: str, endpoint_id: str) -> None:
        """Take it away."""
        self._endpoints.delete(network_id, endpoint_id)

    def endpoint_info(self, network_id: str, endpoint_id: str) -> Mapping[str, str]:  # noqa: ARG002
        """What there is to say of it."""
        return self._endpoints.info(endpoint_id)

    def join(self, network_id: str, endpoint_id: str, sandbox: str) -> Handover:
        """Make its link."""
        return self._endpoints.join(network_id, endpoint_id, sandbox)

    def leave(self, network_id: str, endpoint_id: str) -> None:
        """Note that the container stops."""
        self._endpoints.leave(network_id, endpoint_id)


class AddressService:
    """The IpamDriver half (protocol section 1.4).  A release that the store could not take is owed, not lost."""

    def __init__(self, ipam: Ipam, debts: Debts, liveness: Liveness) -> None:
        self._ipam = ipam
        self._debts = debts
        self._liveness = liveness

    def request_pool(self, request: PoolRequest) -> PoolReply:
        """Grant a pool."""
        self._liveness.refuse_namesake()
        self._debts.pay_all()
        return self._ipam.request_pool(request)

    def release_pool(self, pool_id: str) -> None:
        """Take a pool back."""
        self._debts.pay_or_owe(releasing(Release(pool_id)))

    def request_address(
        self, pool_id: str, address: IPAddress | None, *, gateway: bool
    ) -> IPv4Interface | IPv6Interface:
        """Grant an address."""
        self._liveness.refuse_namesake()
        self._debts.pay_all()
        return self._ipam.request_address(pool_id, address, gateway=gateway)

    def release_address(self, pool_id: str, address: IPAddress) -> None:
        """Take an address back."""
        self._debts.pay_or_owe(releasing(self._ipam.prepare_release(pool_id, address)))
