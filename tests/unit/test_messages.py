"""Requests of dockerd read at the door, and replies built for it."""

import contextlib
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as some

from spanlan.errors import Refuse
from spanlan.libnetwork import messages
from spanlan.libnetwork.fields import Fields
from spanlan.model.host import Handover, MacvlanLink
from spanlan.model.mac import parse_mac
from spanlan.model.request import EndpointReply, NetworkPool, PoolReply

NETWORK_ID = "dc67496ae55c9e591501e552a4fa09d73dff1f5da13d4c4286f50a3e9b463fee"
SWARM_ID = "u82xqwoqslwtw4xvq246ynhj6"
IDS = {"NetworkID": NETWORK_ID, "EndpointID": "cf39cb64bf3f31ce3e38823c8851456235972b33f52d8da9f9d24d42787202af"}
MAC = parse_mac("02:42:ac:11:00:02")


def network(**fields):
    return messages.network_request(Fields({"NetworkID": NETWORK_ID, **fields}))


def endpoint(interface=None, options=None):
    return messages.endpoint_request(Fields({**IDS, "Interface": interface, "Options": options}))


def pool(**fields):
    return messages.pool_request(Fields(fields))


# --- CreateNetwork ----------------------------------------------------------------------------------------------------


def test_a_network_with_all_its_parts_is_read():
    request = network(
        Options={
            "com.docker.network.enable_ipv6": True,
            "com.docker.network.generic": {"segment": "blue", "com.docker.network.driver.mtu": "1400"},
            "com.docker.network.internal": True,
        },
        IPv4Data=[
            {
                "AddressSpace": "spanlan-local",
                "Gateway": "10.60.0.254/24",
                "Pool": "10.60.0.0/24",
                "AuxAddresses": {"router": "10.60.0.5/24"},
            }
        ],
        IPv6Data=[{"Gateway": "fd80::1/64", "Pool": "fd80::/64"}],
    )
    assert request.network_id == NETWORK_ID
    assert request.options == {"segment": "blue", "com.docker.network.driver.mtu": "1400"}
    assert request.internal
    assert request.pools == (
        NetworkPool(ip_network("10.60.0.0/24"), ip_address("10.60.0.254"), {"router": ip_address("10.60.0.5")}),
        NetworkPool(ip_network("fd80::/64"), ip_address("fd80::1")),
    )


@pytest.mark.parametrize("nothing", [{}, {"Options": None, "IPv4Data": None, "IPv6Data": None}, {"IPv6Data": []}])
def test_what_dockerd_leaves_out_or_sends_as_null_is_empty(nothing):
    request = network(**nothing)
    assert (request.options, request.pools, request.internal) == ({}, (), False)


@pytest.mark.parametrize("options", [{"com.docker.network.generic": None}, {"com.docker.network.internal": None}])
def test_null_options_are_no_options(options):
    assert network(Options=options).options == {}


def test_fields_of_engines_to_come_are_passed_over():
    request = network(Future=[1, 2], Options={"com.docker.network.enable_ipv9": {"yes": 1}}, IPv4Data=[])
    assert request.options == {}


def test_the_pool_of_the_null_ipam_is_everything_without_a_gateway():
    request = network(IPv4Data=[{"AddressSpace": "null", "Pool": "0.0.0.0/0"}])
    assert request.pools == (NetworkPool(ip_network("0.0.0.0/0")),)


@pytest.mark.parametrize("identifier", [NETWORK_ID, SWARM_ID, "x" * 128])
def test_ids_of_engines_and_of_swarms_are_taken(identifier):
    assert messages.network_id(Fields({"NetworkID": identifier})) == identifier


@pytest.mark.parametrize(
    "identifier", ["", None, 7, "x" * 129, "../../etc", "a/b", "a b", ".hidden", "a\n", "\u00e9", "a\0b"]
)
def test_an_id_that_could_not_be_part_of_a_key_is_refused(identifier):
    with pytest.raises(Refuse, match="field NetworkID is "):
        messages.network_id(Fields({"NetworkID": identifier}))


def test_an_absent_id_is_called_missing():
    with pytest.raises(Refuse, match=r"^field EndpointID is missing: it must be an id"):
        messages.endpoint_ids(Fields({"NetworkID": NETWORK_ID}))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"Options": []}, "field Options is []: it must be an object"),
        (
            {"Options": {"com.docker.network.generic": {"vni": 7}}},
            "field Options.com.docker.network.generic.vni is 7: it must be a string",
        ),
        (
            {"Options": {"com.docker.network.internal": "yes"}},
            'field Options.com.docker.network.internal is "yes": it must be true or false',
        ),
        ({"IPv4Data": {}}, "field IPv4Data is {}: it must be a list of objects"),
        ({"IPv4Data": [1]}, "field IPv4Data is [1]: it must be a list of objects"),
        ({"IPv4Data": [{}]}, "field IPv4Data[0].Pool is missing: it must be an IPv4 network in CIDR notation"),
        (
            {"IPv4Data": [{"Pool": "10.0.0.0/24"}, {"Pool": "fd80::/64"}]},
            'field IPv4Data[1].Pool is "fd80::/64": it must be an IPv4 network in CIDR notation',
        ),
        (
            {"IPv6Data": [{"Pool": "fd80::/64", "Gateway": "10.0.0.1/24"}]},
            'field IPv6Data[0].Gateway is "10.0.0.1/24": it must be an IPv6 address with its prefix length',
        ),
        (
            {"IPv4Data": [{"Pool": "10.0.0.0/24", "AuxAddresses": {"a": "10.0.0.1"}}]},
            'field IPv4Data[0].AuxAddresses.a is "10.0.0.1": it must be an IP address with its prefix length',
        ),
        (
            {"IPv4Data": [{"Pool": "10.0.0.0/24", "AuxAddresses": {"a": ""}}]},
            'field IPv4Data[0].AuxAddresses.a is "": it must be an IPv4 address with its prefix length',
        ),
        ({"IPv4Data": [{"Pool": "10.0.0.0"}]}, 'field IPv4Data[0].Pool is "10.0.0.0": it must be a network in CIDR'),
        ({"IPv4Data": [{"Pool": "10.0.0.0/255.0.0.0"}]}, "it must be a network in CIDR notation"),
    ],
)
def test_a_complaint_names_the_field_the_value_and_what_it_must_be(fields, words):
    with pytest.raises(Refuse) as refusal:
        network(**fields)
    assert words in str(refusal.value)


def test_half_a_character_is_refused_where_it_stands():
    with pytest.raises(Refuse, match="must be valid Unicode text"):
        network(Options={"com.docker.network.generic": {"segment": "\ud800"}})
    with pytest.raises(Refuse, match="must be valid Unicode text"):
        network(Options={"com.docker.network.generic": {"\ud800": "blue"}})


def test_a_long_value_is_cut_in_the_complaint():
    with pytest.raises(Refuse) as refusal:
        messages.network_id(Fields({"NetworkID": "x" * 100_000}))
    assert len(str(refusal.value)) < 250


# --- endpoints --------------------------------------------------------------------------------------------------------


def test_an_endpoint_with_all_its_parts_is_read():
    request = endpoint(
        {"Address": "10.60.0.128/24", "AddressIPv6": "fd80::2/64", "MacAddress": "02:42:AC:11:00:02"},
        {
            "com.docker.network.endpoint.exposedports": [{"Proto": 6, "Port": 80}],
            "com.docker.network.endpoint.macaddress": "AkKsEQAC",
            "com.docker.network.endpoint.ifname": "lan0",
            "com.example.qos": "gold",
        },
    )
    assert (request.network_id, request.endpoint_id) == (IDS["NetworkID"], IDS["EndpointID"])
    assert request.address == ip_interface("10.60.0.128/24")
    assert request.address6 == ip_interface("fd80::2/64")
    assert request.mac == MAC
    assert request.options == {"com.docker.network.endpoint.ifname": "lan0", "com.example.qos": "gold"}


@pytest.mark.parametrize("interface", [None, {}, {"Address": "", "AddressIPv6": "", "MacAddress": ""}])
def test_an_endpoint_without_an_interface_has_no_addresses(interface):
    request = endpoint(interface)
    assert (request.address, request.address6, request.mac, request.options) == (None, None, None, {})


@pytest.mark.parametrize(
    ("interface", "words"),
    [
        ({"Address": "10.0.0.2"}, 'Interface.Address is "10.0.0.2": it must be an IP address with its prefix length'),
        ({"Address": "10.0.0.2/33"}, 'Interface.Address is "10.0.0.2/33"'),
        ({"Address": "10.0.0.256/24"}, 'Interface.Address is "10.0.0.256/24"'),
        ({"Address": "fd80::2/64"}, 'Interface.Address is "fd80::2/64": it must be an IPv4 address'),
        ({"AddressIPv6": "10.0.0.2/24"}, 'Interface.AddressIPv6 is "10.0.0.2/24": it must be an IPv6 address'),
        ({"AddressIPv6": "fe80::1%eth0/64"}, "it must be an IP address with its prefix length"),
        ({"Address": 7}, "Interface.Address is 7: it must be a string"),
        ({"MacAddress": "02:42"}, 'Interface.MacAddress is "02:42": it must be a MAC address such as'),
        ({"MacAddress": "01:00:5e:00:00:01"}, "it must be a unicast MAC address"),
    ],
)
def test_a_bad_interface_is_refused_by_name(interface, words):
    with pytest.raises(Refuse) as refusal:
        endpoint(interface)
    assert words in str(refusal.value)


def test_only_a_mac_that_was_not_given_is_answered():
    reply = EndpointReply(mac=MAC)
    assert messages.endpoint_reply(endpoint({}), reply) == {"Interface": {"MacAddress": "02:42:ac:11:00:02"}}
    assert messages.endpoint_reply(endpoint({"MacAddress": "02:00:00:00:00:09"}), reply) == {"Interface": {}}
    assert messages.endpoint_reply(endpoint({}), EndpointReply()) == {"Interface": {}}


def handover(**fields):
    return Handover(link=MacvlanLink("sl-1", "spanlan", "vx-blue", MAC, 1450), **fields)


def test_a_join_without_gateway_names_none_so_that_dockerd_adds_its_own_leg():
    assert messages.join_reply(handover()) == {
        "InterfaceName": {"SrcName": "sl-1", "DstPrefix": "eth"},
        "DisableGatewayService": False,
    }


def test_gateways_in_a_join_are_bare_addresses():
    reply = messages.join_reply(
        handover(
            gateway=ip_address("10.0.0.1"), gateway6=ip_address("fd80::1"), prefix="lan", disable_gateway_service=True
        )
    )
    assert reply == {
        "InterfaceName": {"SrcName": "sl-1", "DstPrefix": "lan"},
        "Gateway": "10.0.0.1",
        "GatewayIPv6": "fd80::1",
        "DisableGatewayService": True,
    }


@pytest.mark.parametrize("key", [None, "", "netns/1", 7, "/" + "x" * 5000])
def test_a_sandbox_that_is_no_path_is_refused(key):
    with pytest.raises(Refuse, match="field SandboxKey is"):
        messages.sandbox(Fields({"SandboxKey": key}))


def test_a_port_map_of_a_future_form_does_not_stop_a_container():
    assert messages.count_published_ports(Fields({"Options": {"com.docker.network.portmap": {"new": 1}}})) == 0
    assert messages.count_published_ports(Fields({"Options": {"com.docker.network.portmap": [{}, {}]}})) == 2
    assert messages.count_published_ports(Fields({})) == 0


# --- addresses --------------------------------------------------------------------------------------------------------


def test_a_pool_with_all_its_parts_is_read():
    request = pool(
        AddressSpace="spanlan-local",
        Pool="10.67.0.0/24",
        SubPool="10.67.0.64/26",
        Options={"segment": "blue", "com.docker.network.ipam.serial": "true"},
        V6=False,
    )
    assert request.cidr == ip_network("10.67.0.0/24")
    assert request.within == ip_network("10.67.0.64/26")
    assert request.options == {"segment": "blue"}
    assert not request.v6


@pytest.mark.parametrize("fields", [{}, {"Pool": "", "SubPool": "", "Options": None, "V6": None}])
def test_without_a_pool_the_driver_chooses(fields):
    request = pool(**fields)
    assert (request.cidr, request.within, request.options, request.v6) == (None, None, {}, False)


def test_the_family_of_a_given_pool_is_its_own():
    assert pool(Pool="fd68::/64").v6
    assert pool(V6=True).v6
    with pytest.raises(Refuse, match="must be an IPv4 network, as the request's V6 says"):
        pool(Pool="fd68::/64", V6=False)
    with pytest.raises(Refuse, match="must be an IPv6 network"):
        pool(Pool="10.0.0.0/8", V6=True)
    with pytest.raises(Refuse, match=r"must be a part of 10\.0\.0\.0/8"):
        pool(Pool="10.0.0.0/8", SubPool="fd68::/64")


def test_a_subnet_with_bits_behind_its_prefix_is_refused_with_the_one_that_was_meant():
    with pytest.raises(Refuse, match=r'field Pool is "10\.0\.0\.5/24": .*did you mean 10\.0\.0\.0/24\?'):
        pool(Pool="10.0.0.5/24")


def test_replies_of_pools_and_addresses_are_in_cidr_notation():
    reply = messages.pool_reply(PoolReply("pool-1", ip_network("10.67.0.0/24")))
    assert reply == {"PoolID": "pool-1", "Pool": "10.67.0.0/24", "Data": {}}
    assert messages.address_reply(ip_interface("10.67.0.2/24")) == {"Address": "10.67.0.2/24", "Data": {}}
    assert messages.address_reply(ip_interface("fd68::2/64")) == {"Address": "fd68::2/64", "Data": {}}


def test_a_gateway_is_told_from_an_endpoint():
    assert messages.is_gateway(Fields({"Options": {"RequestAddressType": "com.docker.network.gateway"}}))
    assert not messages.is_gateway(Fields({"Options": {"com.docker.network.endpoint.name": "web"}}))
    assert not messages.is_gateway(Fields({"Options": None}))


def test_addresses_are_bare_in_requests():
    assert messages.wanted_address(Fields({"Address": ""})) is None
    assert messages.wanted_address(Fields({"Address": "10.0.0.9"})) == ip_address("10.0.0.9")
    assert messages.released_address(Fields({"Address": "fd68::2"})) == ip_address("fd68::2")
    for bad in ["10.0.0.9/24", "ten", "fe80::1%eth0", 10, "010.0.0.1"]:
        with pytest.raises(Refuse, match="field Address is"):
            messages.wanted_address(Fields({"Address": bad}))
    with pytest.raises(Refuse, match="field Address is missing"):
        messages.released_address(Fields({}))


@pytest.mark.parametrize("identifier", ["", None, 3, "with blank", "line\n", "x" * 257])
def test_a_pool_id_that_we_never_made_is_refused(identifier):
    with pytest.raises(Refuse, match="field PoolID is"):
        messages.pool_id(Fields({"PoolID": identifier}))


def test_a_pool_id_may_hold_a_cidr():
    assert messages.pool_id(Fields({"PoolID": "blue/fd68::/64"})) == "blue/fd68::/64"


def test_what_a_swarm_manager_allocates_is_what_the_user_gave():
    assert messages.allocation_reply(Fields({"Options": {"vni": "61"}})) == {"Options": {"vni": "61"}}
    assert messages.allocation_reply(Fields({"Options": None})) == {"Options": {}}


# --- anything at all --------------------------------------------------------------------------------------------------

json_values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text(max_size=8),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NETWORK_FIELDS = ["NetworkID", "EndpointID", "Options", "IPv4Data", "IPv6Data", "Interface", "SandboxKey"]
ADDRESS_FIELDS = ["PoolID", "Pool", "SubPool", "V6", "Address"]
field_names = some.sampled_from([*NETWORK_FIELDS, *ADDRESS_FIELDS])


@given(some.dictionaries(field_names, json_values | some.just(NETWORK_ID)))
def test_no_json_object_brings_forth_anything_but_a_request_or_a_refusal(values):
    for read in [
        messages.network_request,
        messages.endpoint_request,
        messages.sandbox,
        messages.pool_request,
        messages.pool_id,
        messages.wanted_address,
        messages.released_address,
        messages.is_gateway,
        messages.count_published_ports,
        messages.allocation_reply,
    ]:
        with contextlib.suppress(Refuse):
            read(Fields(values))


@given(some.binary(max_size=64) | some.text(max_size=64).map(str.encode))
def test_no_bytes_bring_forth_anything_but_fields_or_a_refusal(raw):
    with contextlib.suppress(Refuse):
        assert isinstance(messages.parse_body(raw), Fields)
