"""Routes of ours beside those of others, on the real kernel."""

import pytest

from spanlan.errors import Refuse
from spanlan.kernel.routes import ROUTE_PROTOCOL, ensure_routes, find_routes, route_differences
from spanlan.model.address import ip_address, ip_network
from spanlan.model.host import OnLink

BLUE, RED = ip_network("10.42.0.0/24"), ip_network("10.43.1.5/32")
BLUE6 = ip_network("fd42:1::/64")
ONE, TWO, ONE6 = ip_address("10.9.0.7"), ip_address("10.9.0.8"), ip_address("fd09::7")


def ours(namespace, *family):
    return {
        route["dst"]: route.get("gateway", route["dev"])
        for route in namespace.json("ip", "-j", *family, "route", "show", "proto", str(ROUTE_PROTOCOL))
    }


def test_routes_of_both_families_are_set_under_our_protocol_number(namespace):
    wanted = {BLUE: ONE, RED: TWO, BLUE6: ONE6}
    assert route_differences(wanted) == (
        "route 10.42.0.0/24 via 10.9.0.7",
        "route 10.43.1.5/32 via 10.9.0.8",
        "route fd42:1::/64 via fd09::7",
    )
    report = ensure_routes(wanted)
    assert report.changes == (
        "route 10.42.0.0/24 via 10.9.0.7",
        "route 10.43.1.5/32 via 10.9.0.8",
        "route fd42:1::/64 via fd09::7",
    )
    assert report.failed == {}
    assert ours(namespace) == {"10.42.0.0/24": "10.9.0.7", "10.43.1.5": "10.9.0.8"}
    assert ours(namespace, "-6") == {"fd42:1::/64": "fd09::7"}
    assert find_routes() == wanted
    assert ensure_routes(wanted).changes == ()
    assert route_differences(wanted) == ()


def test_a_route_that_moved_is_changed_and_one_that_is_unwanted_goes(namespace):
    ensure_routes({BLUE: ONE, RED: TWO, BLUE6: ONE6})
    wanted = {BLUE: TWO, BLUE6: ip_address("fd09::8")}
    differences = route_differences(wanted)
    assert ensure_routes(wanted).changes == differences
    assert set(differences) == {
        "route 10.43.1.5/32 via 10.9.0.8: gone",
        "route 10.42.0.0/24 via 10.9.0.7 -> via 10.9.0.8",
        "route fd42:1::/64 via fd09::7 -> via fd09::8",
    }
    assert find_routes() == wanted
    assert ensure_routes({}).failed == {}
    assert find_routes() == {}


def test_routes_of_others_are_neither_seen_nor_touched(namespace):
    namespace.command("ip", "route", "add", "10.50.0.0/24", "via", "10.9.0.9")
    namespace.command("ip", "route", "add", "10.51.0.0/24", "via", "10.9.0.9", "proto", "static")
    before = namespace.json("ip", "-j", "route")
    assert find_routes() == {}
    ensure_routes({BLUE: ONE})
    ensure_routes({})
    assert namespace.json("ip", "-j", "route") == before


def test_a_route_onto_a_link_needs_no_next_hop_and_may_say_the_source(namespace):
    wanted = {BLUE: OnLink("under0", ip_address("10.9.0.1")), RED: OnLink("under0"), BLUE6: OnLink("under0")}
    assert ensure_routes(wanted).failed == {}
    assert ours(namespace) == {"10.42.0.0/24": "under0", "10.43.1.5": "under0"}
    (shown,) = namespace.json("ip", "-j", "route", "show", "10.42.0.0/24")
    assert (shown["scope"], shown["prefsrc"]) == ("link", "10.9.0.1")
    assert find_routes() == wanted
    assert ensure_routes(wanted).changes == ()
    assert ensure_routes({BLUE: ONE}).failed == {}
    assert find_routes() == {BLUE: ONE}


def test_a_next_hop_that_is_no_neighbour_is_reported_and_keeps_no_other_route_from_being_set(namespace):
    report = ensure_routes({BLUE: ip_address("172.16.0.1"), BLUE6: ip_address("fd77::1"), RED: TWO})
    assert set(report.failed) == {BLUE, BLUE6}
    assert "172.16.0.1 is not on a LAN with this host" in report.failed[BLUE]
    assert "must be neighbours, or a router" in report.failed[BLUE6]
    assert find_routes() == {RED: TWO}


@pytest.mark.parametrize(("destination", "hop"), [(BLUE, ONE), (BLUE6, ONE6)])
def test_a_route_of_somebody_else_to_the_same_place_is_named_and_stays(namespace, destination, hop):
    other = "10.9.0.9" if destination.version == 4 else "fd09::9"
    namespace.command("ip", "route", "add", str(destination), "via", other, "proto", "static")
    report = ensure_routes({destination: hop})
    assert f"one via {other} (protocol 4) is there already" in report.failed[destination]
    assert find_routes() == {}
    assert (
        namespace.json("ip", "-j", f"-{destination.version}", "route", "show", str(destination))[0]["gateway"] == other
    )


def test_a_link_that_is_not_there_is_named(namespace):
    assert "no interface eth7" in ensure_routes({BLUE: OnLink("eth7")}).failed[BLUE]


def test_a_segment_sees_only_to_routes_within_its_pools(namespace):
    ensure_routes({BLUE: ONE}, within=[ip_network("10.42.0.0/16")])
    ensure_routes({RED: TWO, BLUE6: ONE6}, within=[ip_network("10.43.0.0/16"), ip_network("fd42:1::/48")])
    assert find_routes(within=[ip_network("10.43.0.0/16")]) == {RED: TWO}
    report = ensure_routes({}, within=[ip_network("10.43.0.0/16")])
    assert report.changes == ("route 10.43.1.5/32 via 10.9.0.8: gone",)
    assert find_routes() == {BLUE: ONE, BLUE6: ONE6}
    with pytest.raises(Refuse, match=r"10\.43\.1\.5/32 lies outside of 10\.42\.0\.0/16"):
        ensure_routes({RED: TWO}, within=[ip_network("10.42.0.0/16")])


def test_a_table_of_its_own_is_left_to_itself(namespace):
    ensure_routes({BLUE: ONE}, table=4242)
    ensure_routes({RED: TWO})
    assert find_routes(table=4242) == {BLUE: ONE}
    assert find_routes() == {RED: TWO}
    assert [route["dst"] for route in namespace.json("ip", "-j", "route", "show", "table", "4242")] == ["10.42.0.0/24"]


def test_routes_that_went_with_a_link_are_put_back(namespace):
    ensure_routes({BLUE: ONE, BLUE6: ONE6})
    namespace.command("ip", "link", "set", "under0", "down")
    assert find_routes() == {}
    assert set(ensure_routes({BLUE: ONE}).failed) == {BLUE}
    namespace.command("ip", "link", "set", "under0", "up")
    assert ensure_routes({BLUE: ONE}).changes == ("route 10.42.0.0/24 via 10.9.0.7",)
