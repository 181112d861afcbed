"""Both drivers with state, in memory: what the protocol promises about networks, endpoints, pools and addresses.

They refuse what a real driver must refuse (an unknown network, an address that is taken), so that the replayed
conversations have to make sense, and keep every parsed request for the tests to look at.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface, ip_interface, ip_network

from spanlan.errors import Gone, Refuse
from spanlan.model.address import IPAddress, IPNetwork
from spanlan.model.host import Handover, MacvlanLink
from spanlan.model.mac import Mac, derive_mac
from spanlan.model.request import EndpointReply, EndpointRequest, NetworkRequest, PoolReply, PoolRequest


@dataclass
class FakeNetworkDriver:
    networks: dict[str, NetworkRequest] = field(default_factory=dict)
    endpoints: dict[str, EndpointRequest] = field(default_factory=dict)
    sandboxes: dict[str, str] = field(default_factory=dict)
    requests: list[object] = field(default_factory=list)
    calls: int = 0

    def create_network(self, request: NetworkRequest) -> None:
        self._note(request)
        self.networks[request.network_id] = request

    def delete_network(self, network_id: str) -> None:
        self._note(network_id)
        if self.networks.pop(network_id, None) is None:
            raise Gone(f"no network {network_id}")

    def create_endpoint(self, request: EndpointRequest) -> EndpointReply:
        self._note(request)
        self._network(request.network_id)
        self.endpoints[request.endpoint_id] = request
        # Always a MAC, wanted or not: that a given one is not echoed is the door's business.
        return EndpointReply(mac=_mac(request))

    def delete_endpoint(self, network_id: str, endpoint_id: str) -> None:
        self._note((network_id, endpoint_id))
        self.sandboxes.pop(endpoint_id, None)
        if self.endpoints.pop(endpoint_id, None) is None:
            raise Gone(f"no endpoint {endpoint_id}")

    def endpoint_info(self, network_id: str, endpoint_id: str) -> Mapping[str, str]:
        self._note((network_id, endpoint_id))
        self._endpoint(endpoint_id)
        return {"segment": "blue"}

    def join(self, network_id: str, endpoint_id: str, sandbox: str) -> Handover:
        self._note((network_id, endpoint_id, sandbox))
        self._network(network_id)
        request = self._endpoint(endpoint_id)
        self.sandboxes[endpoint_id] = sandbox
        link = MacvlanLink(
            name=f"sl-{endpoint_id[:11]}", alias="spanlan", parent="vx-blue", mac=_mac(request), mtu=1450
        )
        return Handover(link=link)

    def leave(self, network_id: str, endpoint_id: str) -> None:
        self._note((network_id, endpoint_id))
        if self.sandboxes.pop(endpoint_id, None) is None:
            raise Gone(f"endpoint {endpoint_id} is in no sandbox")

    def _note(self, request: object) -> None:
        self.calls += 1
        self.requests.append(request)

    def _network(self, network_id: str) -> NetworkRequest:
        if network_id not in self.networks:
            raise Refuse(f"no network {network_id}: create it first")
        return self.networks[network_id]

    def _endpoint(self, endpoint_id: str) -> EndpointRequest:
        if endpoint_id not in self.endpoints:
            raise Gone(f"no endpoint {endpoint_id}")
        return self.endpoints[endpoint_id]


@dataclass
class FakeIpamDriver:
    pools: dict[str, IPNetwork] = field(default_factory=dict)
    held: dict[str, set[IPAddress]] = field(default_factory=dict)
    requests: list[object] = field(default_factory=list)
    calls: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def request_pool(self, request: PoolRequest) -> PoolReply:
        self._note(request)
        cidr = request.cidr or ip_network(f"10.200.{len(self.pools)}.0/24")
        self.pools[f"pool/{cidr}"] = cidr
        self.held.setdefault(f"pool/{cidr}", set())
        return PoolReply(pool_id=f"pool/{cidr}", cidr=cidr)

    def release_pool(self, pool_id: str) -> None:
        self._note(pool_id)
        if self.pools.pop(pool_id, None) is None:
            raise Gone(f"no pool {pool_id}")

    def request_address(
        self, pool_id: str, address: IPAddress | None, *, gateway: bool
    ) -> IPv4Interface | IPv6Interface:
        self._note((pool_id, address, gateway))
        if pool_id not in self.pools:
            raise Refuse(f"no pool {pool_id}")
        with self._lock:
            cidr = self.pools[pool_id]
            held = self.held[pool_id]
            chosen = address or next(host for host in cidr.hosts() if host not in held)
            if chosen not in cidr:
                raise Refuse(f"{chosen} is not in {cidr}")
            held.add(chosen)
        return ip_interface(f"{chosen}/{cidr.prefixlen}")

    def release_address(self, pool_id: str, address: IPAddress) -> None:
        self._note((pool_id, address))
        if address not in self.held.get(pool_id, set()):
            raise Gone(f"{address} is not held")
        self.held[pool_id].remove(address)

    def _note(self, request: object) -> None:
        self.calls += 1
        self.requests.append(request)


def _mac(request: EndpointRequest) -> Mac:
    address = request.address or request.address6 or ip_interface("10.0.0.1/8")
    return derive_mac("blue", address.ip)
