"""The requests and replies of dockerd's remote network and IPAM drivers, between JSON and values.

Past this module no address is a string.  Each function reads or builds one message of the protocol; the structures are
those of moby's ``daemon/libnetwork/drivers/remote/api`` and ``daemon/libnetwork/ipams/remote/api``.  Unknown fields are
the engine's business and are passed over; what is read is checked, and refused with the field's name and value.
"""

import json
from collections.abc import Mapping
from ipaddress import IPv4Interface, IPv6Interface

from spanlan.errors import Refuse
from spanlan.libnetwork.fields import Fields, shown
from spanlan.model.address import IPAddress
from spanlan.model.host import Handover, StaticRoute
from spanlan.model.mac import format_mac
from spanlan.model.request import (
    EndpointReply,
    EndpointRequest,
    NetworkPool,
    NetworkRequest,
    PoolReply,
    PoolRequest,
)

Reply = dict[str, object]

CONTENT_TYPE = "application/vnd.docker.plugins.v1.2+json"
"""The media type that dockerd asks for in its Accept header."""

ACTIVATION: Reply = {"Implements": ["NetworkDriver", "IpamDriver"]}

NETWORK_CAPABILITIES: Reply = {"Scope": "local", "ConnectivityScope": "global"}
"""Local scope: each engine keeps its own networks.  Global would need a swarm, which refuses socket plugins (G15)."""

IPAM_CAPABILITIES: Reply = {"RequiresMACAddress": False, "RequiresRequestReplay": False}
"""Without a MAC in the request dockerd sets none on the link, as ipvlan needs (G7); our pools need no replay."""

ADDRESS_SPACES: Reply = {"LocalDefaultAddressSpace": "spanlan-local", "GlobalDefaultAddressSpace": "spanlan-global"}

_GENERIC = "com.docker.network.generic"
_INTERNAL = "com.docker.network.internal"
_NEXT_HOP, _CONNECTED = 0, 1  # libnetwork types.go, RouteType
_PORT_MAP = "com.docker.network.portmap"
_GATEWAY = "com.docker.network.gateway"
# The engine adds these to what the user wrote: a copy of Interface.MacAddress in base64, and the swarm manager's order
# to hand out addresses in turn.
_ENGINE_ENDPOINT_OPTIONS = frozenset({"com.docker.network.endpoint.macaddress"})
_ENGINE_POOL_OPTIONS = frozenset({"com.docker.network.ipam.serial"})
_LONGEST_SANDBOX = 4096


def parse_body(raw: bytes) -> Fields:
    """Read the body of a request that must have one.

    dockerd repeats a request whose connection broke, but has consumed its body by then and sends none (G4).  Raises
    Refuse for an empty body and for anything that is not a JSON object.
    """
    if not raw.strip():
        raise Refuse(
            "the request has no body: the connection to spanlan broke (was it restarted?) and dockerd repeated the "
            "request without its content; run the docker command again"
        )
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Refuse(f"the body of the request is not valid JSON ({error}): {shown(raw[:60])}") from None
    if not isinstance(values, dict):
        raise Refuse(f"the body of the request must be a JSON object, not {shown(values)}")
    return Fields(values)


# --- the network driver -----------------------------------------------------------------------------------------------


def network_id(body: Fields) -> str:
    """The NetworkID of DeleteNetwork, FreeNetwork and AllocateNetwork."""
    return body.identifier("NetworkID")


def endpoint_ids(body: Fields) -> tuple[str, str]:
    """NetworkID and EndpointID, which every request about an endpoint carries."""
    return body.identifier("NetworkID"), body.identifier("EndpointID")


def network_request(body: Fields) -> NetworkRequest:
    """CreateNetwork.  The pool 0.0.0.0/0 (or ::/0) is what Docker's null IPAM sends; it is passed on as it is."""
    options = body.part("Options")
    return NetworkRequest(
        network_id=network_id(body),
        options=options.part(_GENERIC).texts(),
        pools=(
            *(_network_pool(entry, family=4) for entry in body.parts("IPv4Data")),
            *(_network_pool(entry, family=6) for entry in body.parts("IPv6Data")),
        ),
        internal=options.flag(_INTERNAL),
    )


def _network_pool(entry: Fields, *, family: int) -> NetworkPool:
    cidr = entry.network("Pool")
    if cidr is None or cidr.version != family:
        raise entry.refusal("Pool", f"an IPv{family} network in CIDR notation")
    gateway = entry.interface("Gateway")
    if gateway is not None and gateway.version != family:
        raise entry.refusal("Gateway", f"an IPv{family} address with its prefix length")
    given = entry.part("AuxAddresses")
    auxiliary: dict[str, IPAddress] = {}
    for name in given.names():
        address = given.interface(name)
        if address is None or address.version != family:
            raise given.refusal(name, f"an IPv{family} address with its prefix length")
        auxiliary[name] = address.ip
    return NetworkPool(cidr=cidr, gateway=None if gateway is None else gateway.ip, auxiliary=auxiliary)


def endpoint_request(body: Fields) -> EndpointRequest:
    """CreateEndpoint.  Of its options, lists (ports, DNS servers) are the engine's; the strings are driver options."""
    network, endpoint = endpoint_ids(body)
    interface = body.part("Interface")
    options = body.part("Options").only_texts()
    return EndpointRequest(
        network_id=network,
        endpoint_id=endpoint,
        address=interface.interface4("Address"),
        address6=interface.interface6("AddressIPv6"),
        mac=interface.mac("MacAddress"),
        options={name: text for name, text in options.items() if name not in _ENGINE_ENDPOINT_OPTIONS},
    )


def endpoint_reply(request: EndpointRequest, reply: EndpointReply) -> Reply:
    """CreateEndpoint's answer: only what the request left empty, or dockerd refuses the endpoint (G7)."""
    interface: Reply = {}
    if request.mac is None and reply.mac is not None:
        interface["MacAddress"] = format_mac(reply.mac)
    return {"Interface": interface}


def endpoint_info_reply(value: Mapping[str, str]) -> Reply:
    """EndpointOperInfo's answer."""
    return {"Value": dict(value)}


def sandbox(body: Fields) -> str:
    """Join's SandboxKey: the path of the sandbox's network namespace."""
    text = body.text("SandboxKey")
    if not text.startswith("/") or len(text) > _LONGEST_SANDBOX:
        raise body.refusal("SandboxKey", "the absolute path of a network namespace")
    return text


def join_reply(handover: Handover) -> Reply:
    """Join's answer.  Gateways are bare addresses (G14); without one dockerd adds a leg on docker_gwbridge (G8)."""
    reply: Reply = {
        "InterfaceName": {"SrcName": handover.link.name, "DstPrefix": handover.prefix},
        "DisableGatewayService": handover.disable_gateway_service,
    }
    if handover.gateway is not None:
        reply["Gateway"] = str(handover.gateway)
    if handover.gateway6 is not None:
        reply["GatewayIPv6"] = str(handover.gateway6)
    if handover.routes:
        reply["StaticRoutes"] = [_static_route(route) for route in handover.routes]
    return reply


def _static_route(route: StaticRoute) -> Reply:
    """A route inside the sandbox: by way of an address, or on the link itself (protocol section 1.3, RouteType)."""
    if route.via is None:
        return {"Destination": str(route.destination), "RouteType": _CONNECTED}
    return {"Destination": str(route.destination), "RouteType": _NEXT_HOP, "NextHop": str(route.via)}


def count_published_ports(body: Fields) -> int:
    """How many ports ProgramExternalConnectivity is to publish.  Only the log uses it, so nothing is refused here."""
    return body.part("Options").length(_PORT_MAP)


def allocation_reply(body: Fields) -> Reply:
    """AllocateNetwork's answer: the user's options, unchanged, because what is answered replaces them on every node."""
    return {"Options": body.part("Options").texts()}


# --- the IPAM driver --------------------------------------------------------------------------------------------------


def pool_request(body: Fields) -> PoolRequest:
    """RequestPool.  A given pool says its family itself; ``V6`` decides only when the driver is to choose."""
    cidr = body.network("Pool")
    within = body.network("SubPool")
    v6 = body.flag("V6")
    if cidr is not None:
        if "V6" in body and v6 != (cidr.version == 6):  # noqa: PLR2004 - the protocol's number
            raise body.refusal("Pool", f"an IPv{6 if v6 else 4} network, as the request's V6 says")
        v6 = cidr.version == 6  # noqa: PLR2004
    if within is not None and cidr is not None and within.version != cidr.version:
        raise body.refusal("SubPool", f"a part of {cidr}")
    options = body.part("Options").texts()
    return PoolRequest(
        cidr=cidr,
        within=within,
        options={name: text for name, text in options.items() if name not in _ENGINE_POOL_OPTIONS},
        v6=v6,
    )


def pool_reply(reply: PoolReply) -> Reply:
    """RequestPool's answer."""
    return {"PoolID": reply.pool_id, "Pool": str(reply.cidr), "Data": {}}


def pool_id(body: Fields) -> str:
    """The PoolID, which every later request about the pool carries."""
    return body.pool_identifier("PoolID")


def wanted_address(body: Fields) -> IPAddress | None:
    """RequestAddress: the address that the user wants, or None when any will do."""
    return body.address("Address")


def is_gateway(body: Fields) -> bool:
    """RequestAddress: whether the address is to be the network's gateway."""
    return body.part("Options").text("RequestAddressType") == _GATEWAY


def address_reply(address: IPv4Interface | IPv6Interface) -> Reply:
    """RequestAddress's answer, in CIDR notation (G14)."""
    return {"Address": str(address), "Data": {}}


def released_address(body: Fields) -> IPAddress:
    """ReleaseAddress: a bare address (G14)."""
    address = body.address("Address")
    if address is None:
        raise body.refusal("Address", "an IP address")
    return address
