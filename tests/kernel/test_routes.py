"""Routes of ours beside those of others, on the real kernel."""

import errno
import socket
import time

import pytest

from spanlan.kernel.route_messages import ELSEWHERE
from spanlan.kernel.routes import (
    ROUTE_PROTOCOL,
    DropRoute,
    SetRoute,
    Way,
    dump_routes,
    explain,
    sweep_routes,
    write,
)
from spanlan.model.address import ip_address, ip_network

BLUE, RED = ip_network("10.42.0.0/24"), ip_network("10.43.1.5/32")
BLUE6 = ip_network("fd42:1::/64")
ONE, TWO, ONE6 = ip_address("10.9.0.7"), ip_address("10.9.0.8"), ip_address("fd09::7")


@pytest.fixture
def under(namespace):
    """The index of the underlay's interface."""
    return socket.if_nametoindex("under0")


def ours(namespace, *family):
    return {
        route["dst"]: route.get("gateway", route["dev"])
        for route in namespace.json("ip", "-j", *family, "route", "show", "proto", str(ROUTE_PROTOCOL))
    }


def test_routes_of_both_families_are_set_under_our_protocol_number(namespace, under):
    wanted = {BLUE: Way(under, ONE), RED: Way(under, TWO), BLUE6: Way(under, ONE6)}
    assert write([SetRoute(destination, way) for destination, way in wanted.items()]) == []
    assert ours(namespace) == {"10.42.0.0/24": "10.9.0.7", "10.43.1.5": "10.9.0.8"}
    assert ours(namespace, "-6") == {"fd42:1::/64": "fd09::7"}
    assert dump_routes() == wanted
    assert write([DropRoute(destination) for destination in wanted]) == []
    assert dump_routes() == {}


@pytest.mark.parametrize(("destination", "hop"), [(BLUE, TWO), (BLUE6, ip_address("fd09::8"))])
def test_a_route_that_moved_is_replaced_and_no_second_one_stays(namespace, under, destination, hop):
    write([SetRoute(BLUE, Way(under, ONE)), SetRoute(BLUE6, Way(under, ONE6))])
    assert write([SetRoute(destination, Way(under, hop), replace=True)]) == []
    assert dump_routes()[destination] == Way(under, hop)
    (shown,) = namespace.json("ip", "-j", f"-{destination.version}", "route", "show", str(destination))
    assert shown["gateway"] == str(hop)


def test_a_route_onto_a_link_needs_no_next_hop_and_may_say_the_source(namespace, under):
    wanted = {BLUE: Way(under, source=ip_address("10.9.0.1")), RED: Way(under), BLUE6: Way(under)}
    assert write([SetRoute(destination, way) for destination, way in wanted.items()]) == []
    (shown,) = namespace.json("ip", "-j", "route", "show", "10.42.0.0/24")
    assert (shown["scope"], shown["prefsrc"], shown["dev"]) == ("link", "10.9.0.1", "under0")
    assert dump_routes() == wanted
    assert write([SetRoute(BLUE, Way(under, ONE), replace=True)]) == []
    assert dump_routes()[BLUE] == Way(under, ONE)


def test_routes_of_others_are_neither_seen_nor_touched(namespace, under):
    namespace.command("ip", "route", "add", "10.50.0.0/24", "via", "10.9.0.9")
    namespace.command("ip", "route", "add", "10.42.0.0/24", "via", "10.9.0.9", "proto", "static", "metric", "7")
    before = namespace.json("ip", "-j", "route")
    assert dump_routes() == {}
    write([SetRoute(BLUE, Way(under, ONE))])
    assert dump_routes() == {BLUE: Way(under, ONE)}
    assert write([DropRoute(BLUE), DropRoute(ip_network("10.50.0.0/24")), DropRoute(RED), DropRoute(BLUE6)]) == []
    assert namespace.json("ip", "-j", "route") == before


def test_one_that_has_our_number_and_leads_as_ours_never_do_is_told_as_such_and_can_be_replaced(namespace, under):
    namespace.command("ip", "route", "add", "blackhole", "10.42.0.0/24", "proto", "90")
    namespace.command(
        *("ip", "-6", "route", "add", "fd42:1::/64", "proto", "90"),
        *("nexthop", "via", "fd09::7", "dev", "under0", "nexthop", "via", "fd09::8", "dev", "under0"),
    )
    assert dump_routes() == {BLUE: ELSEWHERE, BLUE6: ELSEWHERE}
    assert write([SetRoute(BLUE, Way(under, ONE), replace=True), SetRoute(BLUE6, Way(under, ONE6), replace=True)]) == []
    assert dump_routes() == {BLUE: Way(under, ONE), BLUE6: Way(under, ONE6)}


def test_a_table_of_its_own_is_left_to_itself(namespace, under):
    namespace.command("ip", "route", "add", "10.42.0.0/24", "via", "10.9.0.9", "table", "42", "proto", "90")
    assert dump_routes() == {}
    assert write([DropRoute(BLUE)]) == []
    assert len(namespace.json("ip", "-j", "route", "show", "table", "42")) == 1


@pytest.mark.parametrize(("destination", "hop"), [(BLUE, ip_address("172.16.0.1")), (BLUE6, ip_address("fd77::1"))])
def test_a_next_hop_that_is_no_neighbour_is_told_and_keeps_no_other_route_from_being_set(under, destination, hop):
    (failure,) = write([SetRoute(destination, Way(under, hop)), SetRoute(RED, Way(under, TWO))])
    said = explain(failure)
    assert f"the host {hop} and this one are not on one LAN, for it is in no network of under0" in said
    assert "or let a router between them route to the containers" in said
    assert dump_routes() == {RED: Way(under, TWO)}


@pytest.mark.parametrize(("destination", "hop"), [(BLUE, ONE), (BLUE6, ONE6)])
def test_a_route_of_somebody_else_to_the_same_place_is_named_and_stays(namespace, under, destination, hop):
    other = "10.9.0.9" if destination.version == 4 else "fd09::9"
    namespace.command("ip", "route", "add", str(destination), "via", other, "proto", "static")
    (failure,) = write([SetRoute(destination, Way(under, hop))])
    assert failure.errno == errno.EEXIST
    assert f"one via {other} (protocol 4) is there already" in explain(failure)
    assert dump_routes() == {}
    (shown,) = namespace.json("ip", "-j", f"-{destination.version}", "route", "show", str(destination))
    assert shown["gateway"] == other


def test_a_link_that_is_down_is_named(namespace, under):
    namespace.command("ip", "link", "set", "under0", "down")
    (failure,) = write([SetRoute(BLUE, Way(under, ONE))])
    assert explain(failure) == "route 10.42.0.0/24 via 10.9.0.7: the link under0 is down"


def test_a_segment_sees_only_routes_within_its_subnets(under):
    write([SetRoute(BLUE, Way(under, ONE)), SetRoute(RED, Way(under, TWO)), SetRoute(BLUE6, Way(under, ONE6))])
    assert set(dump_routes([ip_network("10.43.0.0/16")])) == {RED}
    assert set(dump_routes([ip_network("10.42.0.0/16"), ip_network("fd42:1::/48")])) == {BLUE, BLUE6}
    assert dump_routes([]) == {}


def test_what_segments_that_are_gone_left_behind_is_swept(namespace, under):
    write([SetRoute(BLUE, Way(under, ONE)), SetRoute(RED, Way(under)), SetRoute(BLUE6, Way(under, ONE6))])
    assert set(sweep_routes([ip_network("10.42.0.0/16")])) == {
        "route 10.43.1.5/32 on under0: gone",
        "route fd42:1::/64 via fd09::7: gone",
    }
    assert set(dump_routes()) == {BLUE}


def test_ten_thousand_routes_are_written_and_read_in_seconds(under):
    wanted = {ip_network((0x0A640000 + number, 32)): Way(under, ONE) for number in range(10_000)}
    started = time.monotonic()
    assert write([SetRoute(destination, way) for destination, way in wanted.items()]) == []
    assert dump_routes() == wanted
    assert time.monotonic() - started < 10
