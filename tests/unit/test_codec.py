"""Records in the store: what is written is read back, by older versions too, and garbage is named."""

import json
from collections.abc import Callable
from dataclasses import fields
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanlan.errors import Broken
from spanlan.model.cluster import Endpoint, Host, Member, Segment, Tunnel
from spanlan.model.mac import Mac
from spanlan.model.pool import AddressKind, HeldAddress, Holder, Pool
from spanlan.store import codec, keys
from spanlan.store.base import Entry

NAMES = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,20}", fullmatch=True)
TEXTS = st.text(max_size=20)
ADDRESSES = st.ip_addresses()
NETWORKS = st.builds(
    lambda address, bits: ip_network((address, bits if address.version == 6 else bits // 4), strict=False),
    ADDRESSES,
    st.integers(0, 128),
)
MACS = st.builds(lambda octets: Mac(bytes([octets[0] & 0xFE | 2]) + octets[1:]), st.binary(min_size=6, max_size=6))
HOLDERS = st.lists(st.builds(Holder, host=NAMES, nonce=st.uuids().map(lambda u: u.hex)), max_size=3).map(tuple)

HOSTS = st.builds(Host, name=NAMES, version=TEXTS, instance=TEXTS)
NUMBERS = st.integers(0, 2**24)
TUNNELS = st.builds(Tunnel, vni=NUMBERS, port=NUMBERS, mtu=NUMBERS, family=NUMBERS)
SEGMENTS = st.builds(
    Segment,
    name=NAMES,
    mode=TEXTS,
    variant=TEXTS,
    tunnel=st.none() | TUNNELS,
    pools=st.lists(NETWORKS, max_size=3).map(tuple),
)
MEMBERS = st.builds(
    Member,
    segment=NAMES,
    host=NAMES,
    underlay=st.lists(ADDRESSES, max_size=2).map(tuple),
    networks=st.lists(TEXTS, max_size=3).map(tuple),
)
ENDPOINTS = st.builds(Endpoint, segment=NAMES, address=ADDRESSES, mac=st.none() | MACS, host=NAMES, endpoint_id=TEXTS)
POOLS = st.builds(Pool, space=NAMES, cidr=NETWORKS, holders=HOLDERS, gateway=st.none() | ADDRESSES)
HELD = st.builds(HeldAddress, address=ADDRESSES, kind=st.sampled_from(AddressKind), holders=HOLDERS, claim=TEXTS)

# a busy machine is no mistake of the code
unhurried = settings(deadline=None, max_examples=60)

DECODERS: list[tuple[Callable[[Entry], Any], str]] = [
    (codec.decode_host, "/hosts/alpha"),
    (codec.decode_segment, "/segments/blue"),
    (codec.decode_member, "/segments/blue/members/alpha"),
    (codec.decode_endpoint, "/segments/blue/endpoints/010.000.000.001"),
    (codec.decode_pool, "/pools/cluster/10.0.0.0-24"),
    (codec.decode_held_address, "/pools/cluster/10.0.0.0-24/addresses/010.000.000.001"),
    (codec.decode_pool_index, "/pools"),
    (codec.decode_cursor, "/pools/cluster/10.0.0.0-24/cursor/10.0.0.0-24"),
]
DECODER_NAMES = [decode.__name__ for decode, _ in DECODERS]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = (
    "version", "instance", "mode", "variant", "tunnel", "pools", "underlay", "networks", "address", "mac", "host",
    "endpoint", "cidr", "gateway", "holders", "kind", "claim", "last",
)  # fmt: skip
GOOD_VALUES = {
    "version": "1", "instance": "i", "mode": "vxlan", "variant": "", "pools": [],
    "tunnel": {"vni": 1, "port": 4789, "mtu": 1450, "family": 4}, "underlay": ["192.0.2.1"], "networks": ["n"],
    "address": "10.0.0.1", "mac": "02:00:00:00:00:01", "host": "alpha",
    "endpoint": "e", "cidr": "10.0.0.0/24", "gateway": "10.0.0.1", "holders": ["alpha/1"], "kind": "endpoint",
    "claim": "c", "last": "10.0.0.1",
}  # fmt: skip


def entry(key: str, value: bytes) -> Entry:
    return Entry(key, value, 7)


@unhurried
@given(HOSTS)
def test_a_host_comes_back(host: Host) -> None:
    assert codec.decode_host(entry(keys.host(host.name), codec.encode_host(host))) == host


@unhurried
@given(SEGMENTS)
def test_a_segment_comes_back(segment: Segment) -> None:
    assert codec.decode_segment(entry(keys.segment(segment.name), codec.encode_segment(segment))) == segment


@unhurried
@given(MEMBERS)
def test_a_member_comes_back(member: Member) -> None:
    key = keys.member(member.segment, member.host)
    assert codec.decode_member(entry(key, codec.encode_member(member))) == member


@unhurried
@given(ENDPOINTS)
def test_an_endpoint_comes_back(endpoint: Endpoint) -> None:
    key = keys.endpoint(endpoint.segment, endpoint.address)
    assert codec.decode_endpoint(entry(key, codec.encode_endpoint(endpoint))) == endpoint


@unhurried
@given(POOLS)
def test_a_pool_comes_back(pool: Pool) -> None:
    assert codec.decode_pool(entry(keys.pool(pool.space, pool.cidr), codec.encode_pool(pool))) == pool


@unhurried
@given(HELD, NETWORKS)
def test_a_held_address_comes_back(held: HeldAddress, cidr: Any) -> None:
    key = keys.address("cluster", cidr, held.address)
    assert codec.decode_held_address(entry(key, codec.encode_held_address(held))) == held


@unhurried
@given(st.dictionaries(NAMES, st.lists(NETWORKS, max_size=3).map(tuple), max_size=3), ADDRESSES)
def test_an_index_of_pools_and_a_cursor_come_back(index: Any, last: IPv4Address | IPv6Address) -> None:
    assert codec.decode_pool_index(entry("/pools", codec.encode_pool_index(index))) == index
    assert codec.decode_cursor(entry("/pools/x", codec.encode_cursor(last))) == last


def test_what_a_newer_version_adds_to_a_record_is_passed_over() -> None:
    host = Host("alpha", "1.0", "i")
    record = json.loads(codec.encode_host(host)) | {"colour": {"of": ["the", "future"]}}
    assert codec.decode_host(entry("/hosts/alpha", codec.to_json(record))) == host


def test_a_record_can_be_read_by_a_person() -> None:
    segment = Segment("blue", "vxlan", tunnel=Tunnel(42, 4789, 1450, 4), pools=(ip_network("10.0.0.0/24"),))
    assert codec.encode_segment(segment) == (
        b'{"mode":"vxlan","variant":"","tunnel":{"vni":42,"port":4789,"mtu":1450,"family":4},"pools":["10.0.0.0/24"]}'
    )


@pytest.mark.parametrize(("decode", "key"), DECODERS, ids=DECODER_NAMES)
@unhurried
@given(value=st.binary(max_size=30) | JSON.map(lambda value: json.dumps(value).encode()))
def test_garbage_is_broken_and_names_the_key(decode: Callable[[Entry], Any], key: str, value: bytes) -> None:
    if decode is codec.decode_pool_index:  # any record without a list of networks is an index of nothing
        value = b"[" + value
    with pytest.raises(Broken) as broken:
        decode(entry(key, value))
    assert f"{key} " in str(broken.value) or str(broken.value).endswith(key) or f"{key}:" in str(broken.value)


@pytest.mark.parametrize(("decode", "key"), DECODERS, ids=DECODER_NAMES)
@unhurried
@given(wrong=st.dictionaries(st.sampled_from(FIELDS), JSON, min_size=1))
def test_a_field_of_the_wrong_kind_is_broken_or_of_the_right_type(
    decode: Callable[[Entry], Any], key: str, wrong: dict[str, Any]
) -> None:
    record = wrong if decode is codec.decode_pool_index else GOOD_VALUES | wrong
    try:
        found = decode(entry(key, codec.to_json(record)))
    except Broken:
        return
    if isinstance(found, dict | IPv4Address | IPv6Address):
        return
    for field in fields(found):
        value = getattr(found, field.name)
        if field.type is str:
            assert type(value) is str, field.name
        elif field.type is int:
            assert type(value) is int, field.name


@pytest.mark.parametrize("value", [5, [1 << 40], [True], [["10.0.0.1"]]])
def test_an_address_is_text_and_not_a_number_that_happens_to_fit(value: object) -> None:
    with pytest.raises(Broken, match="/segments/blue/members/alpha"):
        codec.decode_member(entry("/segments/blue/members/alpha", codec.to_json({"underlay": value, "networks": []})))


def test_a_record_nested_without_end_is_broken() -> None:
    with pytest.raises(Broken, match="/hosts/alpha"):
        codec.decode_host(entry("/hosts/alpha", b"[" * 100_000))


@pytest.mark.parametrize(("decode", "key"), [pair for pair in DECODERS if pair[0] is not codec.decode_pool_index])
def test_a_record_that_lacks_everything_is_broken(decode: Callable[[Entry], Any], key: str) -> None:
    with pytest.raises(Broken, match=key):
        decode(entry(key, b"{}"))


def test_a_member_under_a_key_that_is_none_of_a_member_is_broken() -> None:
    with pytest.raises(Broken, match="/elsewhere"):
        codec.decode_member(entry("/elsewhere", codec.encode_member(Member("a", "b", (IPv4Address("192.0.2.1"),), ()))))
