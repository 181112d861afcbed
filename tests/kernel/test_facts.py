"""What the machine offers."""

import socket

import pytest

from example_links import BLUE
from spanlan.errors import Refuse
from spanlan.kernel import facts
from spanlan.kernel.links import Links
from spanlan.model.address import ip_address, ip_network


def route(namespace, *words):
    namespace.command("ip", *words)


def test_the_underlay_is_where_the_default_route_points(namespace):
    route(namespace, "route", "add", "default", "via", "10.9.0.254")
    found = facts.underlay()
    assert (found.interface, found.mtu) == ("under0", 1500)
    assert found.addresses == (ip_address("10.9.0.1"), ip_address("fd09::1"))


def test_of_several_default_routes_the_one_of_the_lowest_metric_counts(namespace):
    route(namespace, "addr", "add", "10.8.0.1/24", "dev", "wire0")
    route(namespace, "route", "add", "default", "via", "10.9.0.254", "metric", "200")
    route(namespace, "route", "add", "default", "via", "10.8.0.254", "metric", "100")
    assert facts.underlay().interface == "wire0"


def test_a_default_route_over_several_ways_gives_the_first(namespace):
    route(namespace, "route", "add", "default", "nexthop", "via", "10.9.0.254", "nexthop", "via", "10.9.0.253")
    assert facts.underlay().interface == "under0"


def test_a_host_with_ipv6_alone_has_an_underlay_too(namespace):
    route(namespace, "addr", "del", "10.9.0.1/24", "dev", "under0")
    route(namespace, "-6", "route", "add", "default", "via", "fd09::fe")
    found = facts.underlay()
    assert (found.interface, found.addresses) == ("under0", (ip_address("fd09::1"),))


def test_the_underlay_may_be_named_by_its_interface(namespace):
    assert facts.underlay("under0").addresses[0] == ip_address("10.9.0.1")


@pytest.mark.parametrize("address", ["10.9.0.1", "fd09::1"])
def test_an_address_that_was_named_comes_first(namespace, address):
    found = facts.underlay(address)
    assert found.interface == "under0"
    assert found.addresses[0] == ip_address(address)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (None, "no default route"),
        ("eth77", "no interface eth77"),
        ("10.1.2.3", "no interface of this host has the address 10.1.2.3"),
        ("wire0", "wire0 has no address of global scope"),
        ("a-name-that-is-far-too-long", "no interface a-name"),
    ],
)
def test_an_underlay_that_is_not_there_is_refused_with_the_cure(namespace, named, message):
    with pytest.raises(Refuse, match=f"{message}.*SPANLAN_UNDERLAY"):
        facts.underlay(named)


def test_addresses_that_will_pass_are_no_vtep(namespace):
    route(namespace, "addr", "add", "fd09::dead/64", "dev", "under0", "nodad", "preferred_lft", "0")
    assert ip_address("fd09::dead") not in facts.underlay("under0").addresses


def test_vxlan_devices_are_listed_with_whose_they_are(namespace):
    Links().ensure_vxlan(BLUE)
    route(namespace, "link", "add", "other", "type", "vxlan", "id", "9", "dstport", "8472", "local", "fd09::1")
    found = {device.name: device for device in facts.vxlan_devices()}
    assert set(found) == {"svx-blue", "other"}
    blue, other = found["svx-blue"], found["other"]
    assert (blue.vni, blue.port, blue.local, blue.ours) == (4200, 4789, ip_address("10.9.0.1"), True)
    assert (other.vni, other.port, other.local, other.ours) == (9, 8472, ip_address("fd09::1"), False)


def test_networks_are_those_of_addresses_and_routes_but_no_default(namespace):
    route(namespace, "route", "add", "default", "via", "10.9.0.254")
    route(namespace, "route", "add", "172.20.0.0/16", "via", "10.9.0.254")
    route(namespace, "route", "add", "172.21.0.0/16", "via", "10.9.0.254", "table", "77")
    route(namespace, "-6", "route", "add", "fd55::/48", "via", "fd09::fe")
    route(namespace, "addr", "add", "10.7.7.7/32", "dev", "wire0")
    found = facts.networks()
    assert set(found) >= {
        ip_network(text)
        for text in ("10.9.0.0/24", "172.20.0.0/16", "172.21.0.0/16", "fd55::/48", "fd09::/64", "10.7.7.7/32")
    }
    assert not [network for network in found if network.prefixlen == 0 or network.is_link_local or network.is_multicast]
    assert ip_network("10.9.0.1/32") not in found


@pytest.mark.parametrize(("family", "version"), [(socket.AF_INET, 4), (socket.AF_INET6, 6)])
def test_a_program_on_the_port_is_named(namespace, family, version):
    with socket.socket(family, socket.SOCK_DGRAM) as holder:
        holder.bind(("", 4789))
        assert "process" in facts.udp_port_owner(4789, version)
        assert facts.udp_port_owner(4790, version) is None


def test_a_vxlan_device_on_the_port_is_nobody_since_devices_share(namespace):
    Links().ensure_vxlan(BLUE)
    assert facts.udp_port_owner(4789, 4) is None
