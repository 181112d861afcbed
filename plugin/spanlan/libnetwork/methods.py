"""Every method of the two drivers: what its request must carry, who does the work, and what goes back.

The list is complete for engines 1.10 to 29 (protocol 1.3 and 1.4).  A method that dockerd may come to know later is
answered with 404, which it tolerates wherever a method is optional.  Handlers here only translate; they never call the
Docker API, because dockerd holds locks while it waits for them (G5).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from spanlan.libnetwork import messages
from spanlan.libnetwork.fields import Fields
from spanlan.libnetwork.messages import Reply
from spanlan.libnetwork.ports import IpamDriver, NetworkDriver

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Method:
    """How a method is answered.

    ``reads_body``: the request says something; else its body is passed over.  ``fixed``: the answer comes out of the
    request alone, needs neither store nor kernel and so no worker.  ``removal``: what is not there is already removed.
    """

    answer: Callable[[Fields], Mapping[str, object]]
    reads_body: bool = True
    fixed: bool = False
    removal: bool = False


def all_methods(driver: NetworkDriver, ipam: IpamDriver) -> dict[str, Method]:
    """The methods by name, as they stand in the path of a request."""
    return {
        "Plugin.Activate": _constant(messages.ACTIVATION),
        **{f"NetworkDriver.{name}": method for name, method in _network_methods(driver).items()},
        **{f"IpamDriver.{name}": method for name, method in _ipam_methods(ipam).items()},
    }


def _constant(reply: Reply) -> Method:
    # Capabilities are asked once in the life of dockerd: an answer that depended on anything could fail for good (G29).
    return Method(lambda _: reply, reads_body=False, fixed=True)


def _network_methods(driver: NetworkDriver) -> dict[str, Method]:
    def create_network(body: Fields) -> Reply:
        driver.create_network(messages.network_request(body))
        return {}

    def delete_network(body: Fields) -> Reply:
        driver.delete_network(messages.network_id(body))
        return {}

    def create_endpoint(body: Fields) -> Reply:
        request = messages.endpoint_request(body)
        return messages.endpoint_reply(request, driver.create_endpoint(request))

    def delete_endpoint(body: Fields) -> Reply:
        driver.delete_endpoint(*messages.endpoint_ids(body))
        return {}

    def endpoint_info(body: Fields) -> Reply:
        return messages.endpoint_info_reply(driver.endpoint_info(*messages.endpoint_ids(body)))

    def join(body: Fields) -> Reply:
        return messages.join_reply(driver.join(*messages.endpoint_ids(body), messages.sandbox(body)))

    def leave(body: Fields) -> Reply:
        driver.leave(*messages.endpoint_ids(body))
        return {}

    return {
        "GetCapabilities": _constant(messages.NETWORK_CAPABILITIES),
        "AllocateNetwork": Method(_allocate_network, fixed=True),
        "FreeNetwork": Method(_free_network, fixed=True, removal=True),
        "GwAllocCheck": _constant({"SkipIPv4": False, "SkipIPv6": False}),
        "CreateNetwork": Method(create_network),
        "DeleteNetwork": Method(delete_network, removal=True),
        "CreateEndpoint": Method(create_endpoint),
        "DeleteEndpoint": Method(delete_endpoint, removal=True),
        "EndpointOperInfo": Method(endpoint_info),
        "Join": Method(join),
        "Leave": Method(leave, removal=True),
        "ProgramExternalConnectivity": Method(_program_external_connectivity, fixed=True),
        "RevokeExternalConnectivity": Method(_revoke_external_connectivity, fixed=True, removal=True),
        # Which nodes a swarm has: spanlan knows its hosts from the store.
        "DiscoverNew": _constant({}),
        "DiscoverDelete": _constant({}),
    }


def _allocate_network(body: Fields) -> Reply:
    # Only a swarm manager asks, and only drivers of global scope; harmless if one does all the same.
    messages.network_id(body)
    return messages.allocation_reply(body)


def _free_network(body: Fields) -> Reply:
    messages.network_id(body)
    return {}


def _program_external_connectivity(body: Fields) -> Reply:
    """Publish ports: dockerd does it itself on docker_gwbridge, and does not ask us then.

    It asks when Join gave the container a gateway of ours.  Nothing of spanlan publishes ports there yet.  An error
    would end the container's start, and Docker's own ipvlan and macvlan drivers, which do not publish ports either,
    let it run; so do we, but say so.
    """
    network_id, endpoint_id = messages.endpoint_ids(body)
    if count := messages.count_published_ports(body):
        _log.warning(
            "endpoint %s of network %s: %d published ports are not programmed: its gateway is not docker_gwbridge",
            endpoint_id,
            network_id,
            count,
        )
    return {}


def _revoke_external_connectivity(body: Fields) -> Reply:
    messages.endpoint_ids(body)
    return {}


def _ipam_methods(ipam: IpamDriver) -> dict[str, Method]:
    def request_pool(body: Fields) -> Reply:
        return messages.pool_reply(ipam.request_pool(messages.pool_request(body)))

    def release_pool(body: Fields) -> Reply:
        ipam.release_pool(messages.pool_id(body))
        return {}

    def request_address(body: Fields) -> Reply:
        wanted = messages.wanted_address(body)
        granted = ipam.request_address(messages.pool_id(body), wanted, gateway=messages.is_gateway(body))
        return messages.address_reply(granted)

    def release_address(body: Fields) -> Reply:
        ipam.release_address(messages.pool_id(body), messages.released_address(body))
        return {}

    return {
        "GetCapabilities": _constant(messages.IPAM_CAPABILITIES),
        "GetDefaultAddressSpaces": _constant(messages.ADDRESS_SPACES),
        "RequestPool": Method(request_pool),
        "ReleasePool": Method(release_pool, removal=True),
        "RequestAddress": Method(request_address),
        "ReleaseAddress": Method(release_address, removal=True),
    }
