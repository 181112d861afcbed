"""How the model is written in the store: JSON, one object a value, so that ``etcdctl get`` is readable.

A decoder takes what a newer version may have added and refuses what it cannot read with Broken, naming the key.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import wraps
from typing import Any, TypeVar

from spanlan.errors import Broken
from spanlan.model.address import IPAddress, IPNetwork, ip_address, ip_network
from spanlan.model.cluster import Endpoint, Host, Member, Segment, Tunnel
from spanlan.model.mac import format_mac, parse_mac
from spanlan.model.pool import AddressKind, HeldAddress, Holder, Pool
from spanlan.store.base import Entry

T = TypeVar("T")


def to_json(record: dict[str, Any]) -> bytes:
    """The bytes of a record: compact, keys in the order given."""
    return json.dumps(record, separators=(",", ":")).encode()


def from_json(entry: Entry) -> dict[str, Any]:
    """The record in an entry.  Raises Broken if it is none."""
    try:
        record = json.loads(entry.value)
    except (ValueError, RecursionError) as error:
        raise Broken(f"the store holds no record that spanlan wrote at {entry.key}: {error}") from error
    if not isinstance(record, dict):
        raise Broken(f"the store holds no record that spanlan wrote at {entry.key}")
    return record


def _decoder(decode: Callable[[str, dict[str, Any]], T]) -> Callable[[Entry], T]:
    @wraps(decode)
    def decode_entry(entry: Entry) -> T:
        try:
            return decode(entry.key, from_json(entry))
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise Broken(f"the record at {entry.key} in the store cannot be read: {error!r}") from error

    return decode_entry


def _text(record: Mapping[str, Any], name: str) -> str:
    return _is_text(record[name])


def _texts(record: Mapping[str, Any], name: str) -> list[str]:
    values = record[name]
    if not isinstance(values, list):
        raise TypeError(f"{name} is no list")
    return [_is_text(value) for value in values]


def _number(record: Mapping[str, Any], name: str) -> int:
    value = record[name]
    if type(value) is not int:  # a bool is an int to isinstance
        raise TypeError(f"{name} is no whole number")
    return value


def _is_text(value: object) -> str:
    # Not only for the type's sake: ip_address(5) is 0.0.0.5.
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def encode_host(host: Host) -> bytes:
    """Write a Host."""
    return to_json({"version": host.version, "instance": host.instance})


@_decoder
def decode_host(key: str, record: dict[str, Any]) -> Host:
    """Read a Host."""
    return Host(name=key.rsplit("/", 1)[1], version=_text(record, "version"), instance=_text(record, "instance"))


def encode_segment(segment: Segment) -> bytes:
    """Write a Segment."""
    return to_json(
        {
            "mode": segment.mode,
            "variant": segment.variant,
            "tunnel": None if segment.tunnel is None else asdict(segment.tunnel),
            "pools": [str(pool) for pool in segment.pools],
        }
    )


@_decoder
def decode_segment(key: str, record: dict[str, Any]) -> Segment:
    """Read a Segment."""
    return Segment(
        name=key.rsplit("/", 1)[1],
        mode=_text(record, "mode"),
        variant=_text(record, "variant"),
        tunnel=_tunnel(record["tunnel"]),
        pools=tuple(ip_network(pool) for pool in _texts(record, "pools")),
    )


def encode_member(member: Member) -> bytes:
    """Write a Member."""
    return to_json({"underlay": [str(address) for address in member.underlay], "networks": list(member.networks)})


@_decoder
def decode_member(key: str, record: dict[str, Any]) -> Member:
    """Read a Member."""
    _, _, segment, _, host = key.split("/")
    return Member(
        segment=segment,
        host=host,
        underlay=tuple(ip_address(text) for text in _texts(record, "underlay")),
        networks=tuple(_texts(record, "networks")),
    )


def encode_endpoint(endpoint: Endpoint) -> bytes:
    """Write an Endpoint."""
    return to_json(
        {
            "address": str(endpoint.address),
            "mac": None if endpoint.mac is None else format_mac(endpoint.mac),
            "host": endpoint.host,
            "endpoint": endpoint.endpoint_id,
        }
    )


@_decoder
def decode_endpoint(key: str, record: dict[str, Any]) -> Endpoint:
    """Read an Endpoint."""
    return Endpoint(
        segment=key.split("/")[2],
        address=ip_address(_text(record, "address")),
        mac=None if record["mac"] is None else parse_mac(_text(record, "mac")),
        host=_text(record, "host"),
        endpoint_id=_text(record, "endpoint"),
    )


def encode_pool(pool: Pool) -> bytes:
    """Write a Pool."""
    return to_json(
        {
            "cidr": str(pool.cidr),
            "gateway": None if pool.gateway is None else str(pool.gateway),
            "holders": [_holder_text(holder) for holder in pool.holders],
        }
    )


@_decoder
def decode_pool(key: str, record: dict[str, Any]) -> Pool:
    """Read a Pool."""
    return Pool(
        space=key.split("/")[2],
        cidr=ip_network(_text(record, "cidr")),
        holders=_holders(_texts(record, "holders")),
        gateway=None if record.get("gateway") is None else ip_address(_text(record, "gateway")),
    )


def encode_held_address(held: HeldAddress) -> bytes:
    """Write a HeldAddress."""
    return to_json(
        {
            "address": str(held.address),
            "kind": held.kind.value,
            "holders": [_holder_text(holder) for holder in held.holders],
            "claim": held.claim,
        }
    )


@_decoder
def decode_held_address(key: str, record: dict[str, Any]) -> HeldAddress:  # noqa: ARG001 - the record says it all
    """Read a HeldAddress."""
    return HeldAddress(
        address=ip_address(_text(record, "address")),
        kind=AddressKind(_text(record, "kind")),
        holders=_holders(_texts(record, "holders")),
        claim=_text(record, "claim"),
    )


def encode_pool_index(index: Mapping[str, Sequence[IPNetwork]]) -> bytes:
    """Write which pools there are, by address space."""
    return to_json({space: [str(cidr) for cidr in cidrs] for space, cidrs in index.items()})


@_decoder
def decode_pool_index(key: str, record: dict[str, Any]) -> dict[str, tuple[IPNetwork, ...]]:  # noqa: ARG001
    """Read which pools there are, by address space."""
    return {space: tuple(ip_network(cidr) for cidr in _texts(record, space)) for space in record}


def encode_cursor(last: IPAddress) -> bytes:
    """Write the address that was handed out last."""
    return to_json({"last": str(last)})


@_decoder
def decode_cursor(key: str, record: dict[str, Any]) -> IPAddress:  # noqa: ARG001
    """Read the address that was handed out last."""
    return ip_address(_text(record, "last"))


def _tunnel(record: Any) -> Tunnel | None:
    if record is None:
        return None
    return Tunnel(**{name: _number(record, name) for name in ("vni", "port", "mtu", "family")})


def _holder_text(holder: Holder) -> str:
    return f"{holder.host}/{holder.nonce}"


def _holders(texts: list[str]) -> tuple[Holder, ...]:
    return tuple(Holder(host, nonce) for host, _, nonce in (text.rpartition("/") for text in texts))
