"""This host's own records: what is written is read again, and can be told from what another version wrote."""

import json
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanlan.control import records_codec
from spanlan.errors import Broken
from spanlan.model.cluster import Segment, Tunnel
from spanlan.model.host import IsolatedLink, LanAttachment, TunnelAttachment, VlanLink
from spanlan.model.local import LocalEndpoint, Network
from spanlan.model.mac import Mac
from spanlan.model.request import NetworkPool

TEXTS = st.text(max_size=12)
NUMBERS = st.integers(0, 2**32)
ADDRESSES = st.ip_addresses()
MACS = st.binary(min_size=6, max_size=6).filter(lambda raw: any(raw) and not raw[0] & 1).map(Mac)
NETWORKS = st.one_of(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(lambda of: IPv4Network(of, strict=False)),
    st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 128)).map(lambda of: IPv6Network(of, strict=False)),
)
TUNNELS = st.builds(Tunnel, vni=NUMBERS, port=NUMBERS, mtu=NUMBERS, family=st.sampled_from([4, 6]))
SEGMENTS = st.builds(
    Segment,
    name=TEXTS,
    mode=TEXTS,
    variant=TEXTS,
    tunnel=st.none() | TUNNELS,
    pools=st.lists(NETWORKS, max_size=3).map(tuple),
)
QOS = st.lists(st.tuples(NUMBERS, st.integers(0, 7)), max_size=3).map(tuple)
LINKS = st.one_of(
    st.builds(VlanLink, name=TEXTS, alias=TEXTS, parent=TEXTS, vlan=NUMBERS, protocol=TEXTS, egress_qos=QOS),
    st.builds(IsolatedLink, name=TEXTS, alias=TEXTS, mtu=NUMBERS),
)
ATTACHMENTS = st.one_of(
    st.builds(TunnelAttachment, interface=TEXTS, vtep=ADDRESSES, ttl=NUMBERS, tos=NUMBERS, udp_csum=st.booleans()),
    st.builds(
        LanAttachment,
        parent=TEXTS,
        links=st.lists(LINKS, max_size=2).map(tuple),
        kind=TEXTS,
        mode=TEXTS,
        flag=TEXTS,
        mtu=st.none() | NUMBERS,
        next_hops=st.lists(ADDRESSES, max_size=2).map(tuple),
        host_addresses=st.lists(ADDRESSES, max_size=2).map(tuple),
        beyond=st.lists(NETWORKS, max_size=2).map(tuple),
    ),
)
POOLS = st.builds(
    NetworkPool,
    cidr=NETWORKS,
    gateway=st.none() | ADDRESSES,
    auxiliary=st.dictionaries(TEXTS, ADDRESSES, max_size=2),
)
NETWORK_RECORDS = st.builds(
    Network,
    network_id=TEXTS,
    segment=SEGMENTS,
    attachment=ATTACHMENTS,
    prefix=TEXTS,
    internal=st.booleans(),
    pools=st.lists(POOLS, max_size=2).map(tuple),
    holds=st.lists(TEXTS, max_size=2).map(tuple),
)
ENDPOINT_RECORDS = st.builds(
    LocalEndpoint,
    endpoint_id=TEXTS,
    network_id=TEXTS,
    segment=TEXTS,
    addresses=st.lists(ADDRESSES, max_size=2).map(tuple),
    mac=st.none() | MACS,
)


def through_a_file(record: Any) -> Any:
    return json.loads(json.dumps(record))


@given(NETWORK_RECORDS)
def test_a_network_is_read_as_it_was_written(network: Network) -> None:
    assert records_codec.read_network(through_a_file(records_codec.write_network(network))) == network


@given(ENDPOINT_RECORDS)
def test_an_endpoint_is_read_as_it_was_written(endpoint: LocalEndpoint) -> None:
    assert records_codec.read_endpoint(through_a_file(records_codec.write_endpoint(endpoint))) == endpoint


@given(NETWORK_RECORDS)
def test_a_network_that_was_read_can_be_compared_by_its_hash(network: Network) -> None:
    """Attachments and grounds are compared in every pass; lists instead of tuples would make them differ for ever."""
    read = records_codec.read_network(through_a_file(records_codec.write_network(network)))
    assert hash(read.attachment) == hash(network.attachment)
    assert hash(read.segment) == hash(network.segment)


@given(NETWORK_RECORDS)
def test_an_attachment_of_a_kind_that_this_version_does_not_know_is_broken(network: Network) -> None:
    record = through_a_file(records_codec.write_network(network))
    record["attachment"]["on"] = "carrier pigeons"
    with pytest.raises(Broken, match="a network on 'carrier pigeons', of which this version knows nothing"):
        records_codec.read_network(record)
