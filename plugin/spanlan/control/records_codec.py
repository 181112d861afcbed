"""How this host's own records are written: JSON, like those of the cluster's store."""

from dataclasses import asdict
from typing import Any

from spanlan.errors import Broken
from spanlan.model.address import ip_address, ip_network
from spanlan.model.cluster import Segment, Tunnel
from spanlan.model.host import Attachment, IsolatedLink, LanAttachment, TunnelAttachment, VlanLink
from spanlan.model.local import LocalEndpoint, Network
from spanlan.model.mac import format_mac, parse_mac
from spanlan.model.request import NetworkPool

Record = dict[str, Any]


def write_network(network: Network) -> Record:
    """Write a Network."""
    segment = network.segment
    return {
        "network": network.network_id,
        "segment": {
            "name": segment.name,
            "mode": segment.mode,
            "variant": segment.variant,
            "tunnel": None if segment.tunnel is None else asdict(segment.tunnel),
            "pools": [str(pool) for pool in segment.pools],
        },
        "attachment": _write_attachment(network.attachment),
        "prefix": network.prefix,
        "internal": network.internal,
        "pools": [_write_pool(pool) for pool in network.pools],
        "holds": list(network.holds),
    }


def read_network(record: Record) -> Network:
    """Read a Network."""
    segment, tunnel = record["segment"], record["segment"]["tunnel"]
    return Network(
        network_id=record["network"],
        segment=Segment(
            name=segment["name"],
            mode=segment["mode"],
            variant=segment["variant"],
            tunnel=None if tunnel is None else Tunnel(**tunnel),
            pools=tuple(ip_network(pool) for pool in segment["pools"]),
        ),
        attachment=_read_attachment(record["attachment"]),
        prefix=record["prefix"],
        internal=record["internal"],
        pools=tuple(_read_pool(pool) for pool in record["pools"]),
        holds=tuple(record["holds"]),
    )


def write_endpoint(endpoint: LocalEndpoint) -> Record:
    """Write a LocalEndpoint."""
    return {
        "endpoint": endpoint.endpoint_id,
        "network": endpoint.network_id,
        "segment": endpoint.segment,
        "addresses": [str(address) for address in endpoint.addresses],
        "mac": None if endpoint.mac is None else format_mac(endpoint.mac),
    }


def read_endpoint(record: Record) -> LocalEndpoint:
    """Read a LocalEndpoint."""
    return LocalEndpoint(
        endpoint_id=record["endpoint"],
        network_id=record["network"],
        segment=record["segment"],
        addresses=tuple(ip_address(text) for text in record["addresses"]),
        mac=None if record["mac"] is None else parse_mac(record["mac"]),
    )


def _write_attachment(attachment: Attachment) -> Record:
    if isinstance(attachment, TunnelAttachment):
        return {"on": "tunnel"} | asdict(attachment) | {"vtep": str(attachment.vtep)}
    return {
        "on": "lan",
        "parent": attachment.parent,
        "links": [_write_link(link) for link in attachment.links],
        "kind": attachment.kind,
        "mode": attachment.mode,
        "flag": attachment.flag,
        "mtu": attachment.mtu,
        "next_hops": [str(address) for address in attachment.next_hops],
        "host_addresses": [str(address) for address in attachment.host_addresses],
        "beyond": [str(subnet) for subnet in attachment.beyond],
    }


def _read_attachment(record: Record) -> Attachment:
    fields = {name: value for name, value in record.items() if name != "on"}
    match record["on"]:
        case "tunnel":
            return TunnelAttachment(**fields | {"vtep": ip_address(record["vtep"])})
        case "lan":
            return LanAttachment(
                **fields
                | {
                    "links": tuple(_read_link(link) for link in record["links"]),
                    "next_hops": tuple(ip_address(text) for text in record["next_hops"]),
                    "host_addresses": tuple(ip_address(text) for text in record["host_addresses"]),
                    "beyond": tuple(ip_network(text) for text in record["beyond"]),
                }
            )
        case other:
            raise Broken(f"this host's records know a network on {other!r}, of which this version knows nothing")


def _write_link(link: VlanLink | IsolatedLink) -> Record:
    kind = "vlan" if isinstance(link, VlanLink) else "isolated"
    return {"is": kind} | asdict(link)


def _read_link(record: Record) -> VlanLink | IsolatedLink:
    fields = {name: value for name, value in record.items() if name != "is"}
    if record["is"] == "isolated":
        return IsolatedLink(**fields)
    return VlanLink(**fields | {"egress_qos": tuple((inner, outer) for inner, outer in record["egress_qos"])})


def _write_pool(pool: NetworkPool) -> Record:
    return {
        "cidr": str(pool.cidr),
        "gateway": None if pool.gateway is None else str(pool.gateway),
        "auxiliary": {name: str(address) for name, address in pool.auxiliary.items()},
    }


def _read_pool(record: Record) -> NetworkPool:
    return NetworkPool(
        cidr=ip_network(record["cidr"]),
        gateway=None if record["gateway"] is None else ip_address(record["gateway"]),
        auxiliary={name: ip_address(text) for name, text in record["auxiliary"].items()},
    )
