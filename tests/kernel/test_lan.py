"""Wanted, found, difference, apply: one segment on the LAN, its links and its routes, on the real kernel."""

import dataclasses
import socket
import time

import pytest

from example_links import BLUE as TUNNEL
from example_parents import ISOLATED, MACVLAN, exists, show
from spanlan.errors import Broken, Refuse, Retry
from spanlan.kernel.lan import LanState, state_of
from spanlan.kernel.links import Links
from spanlan.kernel.monitor import AddressesChanged, LinkChanged, LinkGone, Monitor, Overrun, RouteSeen
from spanlan.kernel.overlay import OverlayState
from spanlan.kernel.routes import Way, dump_routes
from spanlan.kernel.state import describe
from spanlan.lab.commands import patience
from spanlan.model.address import ip_address, ip_network
from spanlan.model.host import HostLink, LanGround, Nic, OnLink, Wanted
from spanlan.model.mac import parse_mac

POOL, POOL6 = ip_network("10.42.0.0/16"), ip_network("fd42::/64")
ONE, TWO, ONE6 = ip_address("10.9.0.7"), ip_address("10.9.0.8"), ip_address("fd09::7")
FIVE, FIVE6 = ip_address("10.42.0.5"), ip_address("fd42::5")
CHILD = dataclasses.replace(MACVLAN, name="slh-blue", alias="spanlan segment=blue host", mac=None)
OWN, OWN6 = ip_address("10.42.0.1"), ip_address("fd42::1")
ROUTED = LanGround((Nic("under0"),), routed=(POOL, POOL6))
WITH_HOST = LanGround(
    (Nic("under0"),),
    HostLink(CHILD, (OWN, OWN6)),
    (POOL, POOL6),
    ((POOL, OnLink("slh-blue", OWN)), (POOL6, OnLink("slh-blue", OWN6))),
)
QUIET = patience(0.05)
"""Seconds without a word from the kernel after which it has said all."""


@pytest.fixture
def under(namespace):
    """The index of the parent."""
    return socket.if_nametoindex("under0")


@pytest.fixture
def state(namespace):
    fresh = LanState(WITH_HOST)
    fresh.want_entries(Wanted(routes={FIVE: ONE, FIVE6: ONE6}))
    return fresh


def subnets_on_host():
    index = socket.if_nametoindex("slh-blue")
    return {POOL: Way(index, source=OWN), POOL6: Way(index, source=OWN6)}


def all_there(under):
    return subnets_on_host() | {
        ip_network("10.42.0.5/32"): Way(under, ONE),
        ip_network("fd42::5/128"): Way(under, ONE6),
    }


def observe_until_unsettled(state, monitor):
    """Take in what comes, until there is something to do; fails if nothing comes."""
    deadline = time.monotonic() + 5
    while True not in [state.observe(event) for event in monitor.events(1)]:
        assert time.monotonic() < deadline, "nothing was seen"


def settle(state, monitor):
    """Take in what the kernel says of our own doings."""
    while events := monitor.events(QUIET):
        for event in events:
            state.observe(event)
    return state.sync()


# -- the shape --------------------------------------------------------------------------------------------------------


def test_each_ground_has_its_own_kind_of_state_and_keeps_to_it(namespace):
    lan, tunnel = state_of(ROUTED, Links()), state_of(TUNNEL, Links())
    assert (type(lan), type(tunnel)) == (LanState, OverlayState)
    with pytest.raises(Broken):
        lan.want_ground(TUNNEL)
    with pytest.raises(Broken):
        tunnel.want_ground(ROUTED)


def test_each_state_takes_only_what_concerns_it(namespace):
    mac = parse_mac("02:42:0a:2a:00:05")
    wanted = Wanted({FIVE: mac}, {mac: ONE}, {FIVE: ONE, FIVE + 2: ONE, FIVE + 9: None})
    lan, tunnel = state_of(ROUTED, Links()), state_of(TUNNEL, Links())
    for each in (lan, tunnel):
        each.want_entries(wanted)
    assert (lan.pending, lan.counts) == (2, {"routes": 2})
    assert (tunnel.pending, tunnel.counts) == (2, {"neighbours": 1, "fdb": 1})
    tunnel.want_entries(Wanted({FIVE: None}))
    assert tunnel.counts == {"neighbours": 0, "fdb": 1}


def test_a_tunnels_device_stays_if_it_is_to_be_kept(namespace):
    tunnel = state_of(TUNNEL, Links())
    tunnel.sync()
    assert tunnel.remove(keep={"svx-blue"}) is False
    assert exists(namespace, "svx-blue")
    assert tunnel.remove() is True


# -- made as wanted ---------------------------------------------------------------------------------------------------


def test_a_sync_makes_the_hosts_own_link_and_all_routes(state, under):
    report = state.sync()
    assert (report.index, report.changes) == (under, ("slh-blue: made",))
    assert (report.written, report.dropped, report.failed, report.pending, report.reasons) == (4, 0, 0, 0, ())
    assert dump_routes() == all_there(under)
    assert state.settled
    second = state.sync()
    assert (second.changes, second.written, second.dropped, second.reasons) == ((), 0, 0, ())


def test_the_difference_is_told_and_nothing_is_done(state, under, namespace):
    before = namespace.json("ip", "-j", "route"), namespace.json("ip", "-j", "link")
    difference = state.difference()
    assert (difference.index, difference.link) == (under, ("slh-blue: not there",))
    assert "route 10.42.0.5/32 via 10.9.0.7" in map(describe, difference.steps)
    assert (namespace.json("ip", "-j", "route"), namespace.json("ip", "-j", "link")) == before
    state.sync()
    assert state.difference() == dataclasses.replace(difference, link=(), steps=())


def test_only_what_changed_is_written(state, under):
    state.sync()
    state.want_entries(Wanted(routes={FIVE: TWO, FIVE + 90: ONE}))
    assert not state.settled
    report = state.sync()
    assert (report.written, report.dropped) == (2, 0)
    assert dump_routes()[ip_network("10.42.0.5/32")] == Way(under, TWO)
    state.want_entries(Wanted(routes={FIVE: None}))
    report = state.sync()
    assert (report.written, report.dropped) == (0, 1)
    assert ip_network("10.42.0.5/32") not in dump_routes()


def test_neighbouring_addresses_of_one_host_are_one_route(under):
    state = LanState(ROUTED)
    block = ip_address("10.42.7.0")
    state.want_entries(Wanted(routes={block + number: ONE for number in range(256)}))
    assert state.sync().written == 1
    assert dump_routes() == {ip_network("10.42.7.0/24"): Way(under, ONE)}
    state.want_entries(Wanted(routes={block + 255: None}))
    assert state.sync().dropped == 1
    assert not any(block + 255 in network for network in dump_routes())
    assert state.counts == {"routes": 8}


def test_a_subnet_that_a_host_fills_is_routed_there_and_back_onto_the_link_when_it_does_not(under, namespace):
    subnet = ip_network("10.42.0.4/31")
    ground = dataclasses.replace(ROUTED, subnets=((subnet, OnLink("under0")),))
    state = LanState(ground)
    state.want_entries(Wanted(routes={FIVE - 1: ONE, FIVE: ONE}))
    state.sync()
    assert dump_routes() == {subnet: Way(under, ONE)}
    state.want_entries(Wanted(routes={FIVE: None}))
    state.sync()
    assert dump_routes() == {subnet: Way(under), ip_network("10.42.0.4/32"): Way(under, ONE)}


def test_a_daemon_without_memory_takes_over_what_it_finds(state, under, namespace):
    state.sync()
    namespace.command("ip", "route", "add", "10.42.9.9", "via", "10.9.0.7", "proto", "90")  # left while we were away
    namespace.command("ip", "route", "add", "10.77.0.0/24", "via", "10.9.0.7", "proto", "90")  # another segment's
    reborn = LanState(WITH_HOST)
    reborn.want_entries(Wanted(routes={FIVE: ONE, FIVE6: ONE6}))
    report = reborn.sync()
    assert (report.changes, report.written, report.dropped) == ((), 0, 1)
    assert dump_routes([POOL, POOL6]) == all_there(under)
    assert len(dump_routes()) == 5


def test_a_sync_may_be_done_in_small_pieces(state):
    reports = [state.sync(limit=2) for _ in range(2)]
    assert [(report.written, report.pending) for report in reports] == [(2, 2), (2, 0)]


def test_a_parent_may_be_named_by_its_alternative_name(namespace, under):
    namespace.command("ip", "link", "property", "add", "dev", "under0", "altname", "lan")
    state = LanState(
        LanGround((Nic("lan"),), routed=(POOL,), subnets=((POOL, OnLink("lan")), (ip_network("10.42.1.0/24"), ONE)))
    )
    assert state.sync().written == 2
    state.doubt()
    assert state.sync().written == 0


# -- what cannot be set -----------------------------------------------------------------------------------------------


def test_hosts_that_are_not_on_one_lan_are_named_and_all_others_are_routed_to(state, under):
    far, far6 = ip_address("172.16.0.1"), ip_address("fd99::7")
    state.want_entries(Wanted(routes={FIVE + 10: far, FIVE + 12: far, FIVE6 + 10: far6}))
    report = state.sync()
    assert (report.written, report.failed, report.pending) == (4, 3, 3)
    assert dump_routes() == all_there(under)
    one, other = report.reasons
    assert "the host 172.16.0.1 and this one are not on one LAN" in one
    assert one.endswith("(and 1 more routes)")
    assert "the host fd99::7 and this one are not on one LAN" in other
    state.want_entries(Wanted(routes={FIVE + 10: ONE, FIVE + 12: None, FIVE6 + 10: None}))
    assert state.sync().reasons == ()
    assert state.settled


def test_many_hosts_on_other_lans_are_not_all_told(under):
    state = LanState(ROUTED)
    state.want_entries(Wanted(routes={FIVE + 2 * number: ip_address("172.16.0.1") + number for number in range(9)}))
    report = state.sync()
    assert (report.failed, len(report.reasons)) == (9, 6)
    assert report.reasons[-1] == "and 4 other next hops likewise"


def test_a_route_outside_of_the_segments_subnets_is_not_set(under):
    state = LanState(ROUTED)
    state.want_entries(Wanted(routes={ip_address("10.77.0.1"): ONE, FIVE: ONE}))
    report = state.sync()
    assert (report.written, report.failed) == (1, 1)
    assert "10.77.0.1/32 via 10.9.0.7: it lies outside of the segment's subnets (10.42.0.0/16" in report.reasons[0]
    assert set(dump_routes()) == {ip_network("10.42.0.5/32")}
    state.want_ground(dataclasses.replace(ROUTED, routed=(POOL, POOL6, ip_network("10.77.0.0/24"))))
    assert (state.sync().written, state.settled) == (1, True)


def test_a_route_over_a_link_that_is_not_there_waits_for_it(namespace):
    state = LanState(ROUTED)
    state.want_entries(Wanted(routes={FIVE: OnLink("br7")}))
    report = state.sync()
    assert report.failed == 1
    assert "the link that it leads over is not there (yet)" in report.reasons[0]
    namespace.command("ip", "link", "add", "br7", "type", "bridge")
    namespace.command("ip", "link", "set", "br7", "up")
    assert state.sync().written == 1


def test_somebody_elses_route_in_the_way_is_named_and_ours_is_set_when_it_is_gone(state, under, namespace):
    namespace.command("ip", "route", "add", "10.42.0.5", "via", "10.9.0.9", "proto", "static")
    report = state.sync()
    assert (report.written, report.failed) == (3, 1)
    assert "one via 10.9.0.9 (protocol 4) is there already" in report.reasons[0]
    namespace.command("ip", "route", "del", "10.42.0.5")
    assert state.sync().written == 1
    assert dump_routes() == all_there(under)


# -- drift ------------------------------------------------------------------------------------------------------------


def test_what_we_did_ourselves_is_no_drift(state):
    with Monitor() as monitor:
        state.sync()
        report = settle(state, monitor)
        assert (report.changes, report.written, report.dropped) == ((), 0, 0)
        assert not any(state.observe(event) for event in monitor.events(0.05))
    assert state.settled


@pytest.mark.parametrize(
    "by_hand",
    [
        ("route", "del", "10.42.0.5"),
        ("route", "replace", "10.42.0.5", "via", "10.9.0.8", "proto", "90"),
        ("route", "add", "10.42.0.77", "via", "10.9.0.8", "proto", "90"),
        ("route", "del", "10.42.0.0/16"),
        ("route", "del", "fd42::5"),
        ("route", "replace", "fd42::5", "via", "fd09::8", "proto", "90"),
        ("addr", "del", "10.42.0.1/32", "dev", "slh-blue"),
        ("addr", "del", "fd42::1/128", "dev", "slh-blue"),
        ("link", "set", "slh-blue", "down"),
        ("link", "set", "slh-blue", "mtu", "1400"),
        ("link", "del", "slh-blue"),
    ],
    ids=" ".join,
)
def test_what_was_changed_by_hand_is_seen_and_put_back(state, under, namespace, by_hand):
    with Monitor() as monitor:
        state.sync()
        settle(state, monitor)
        assert state.settled
        namespace.command("ip", *by_hand)
        observe_until_unsettled(state, monitor)
        settle(state, monitor)
    assert dump_routes() == all_there(under)
    assert state.difference().link == ()
    assert state.difference().steps == ()


def test_a_parent_that_goes_down_and_up_has_its_routes_again(state, under, namespace):
    with Monitor() as monitor:
        state.sync()
        settle(state, monitor)
        namespace.command("ip", "link", "set", "under0", "down")
        observe_until_unsettled(state, monitor)
        report = settle(state, monitor)
        assert "the parent under0 is down: ip link set under0 up" in report.reasons
        assert any("the link under0 is down" in reason for reason in report.reasons)
        assert state.sync().reasons == report.reasons  # and goes on to be told
        namespace.command("ip", "link", "set", "under0", "up")
        namespace.command("ip", "addr", "add", "fd09::1/64", "dev", "under0", "nodad")  # which went with the link
        observe_until_unsettled(state, monitor)
        assert settle(state, monitor).reasons == ()
    assert dump_routes() == all_there(under)


def test_a_parent_that_is_deleted_and_made_again_has_the_hosts_own_link_and_its_routes_again(state, under, namespace):
    with Monitor() as monitor:
        state.sync()
        settle(state, monitor)
        namespace.command("ip", "link", "delete", "under0")
        observe_until_unsettled(state, monitor)
        with pytest.raises(Retry, match="parent under0 is not there"):
            state.sync()
        namespace.command("ip", "link", "add", "under0", "type", "veth", "peer", "name", "wire0")
        observe_until_unsettled(state, monitor)
        report = state.sync()
        assert "the host's own link slh-blue is not there until under0 is up" in report.reasons
        namespace.command("ip", "addr", "add", "10.9.0.1/24", "dev", "under0")
        namespace.command("ip", "addr", "add", "fd09::1/64", "dev", "under0", "nodad")
        namespace.command("ip", "link", "set", "wire0", "up")
        namespace.command("ip", "link", "set", "under0", "up")
        observe_until_unsettled(state, monitor)
        assert settle(state, monitor).reasons == ()
    assert state.index == socket.if_nametoindex("under0") != under
    assert dump_routes() == all_there(state.index)


def test_a_renamed_parent_is_refused_with_its_new_name(state, namespace):
    state.sync()
    namespace.command("ip", "link", "set", "under0", "down")
    namespace.command("ip", "link", "set", "under0", "name", "lan7")
    state.doubt()
    with pytest.raises(Refuse, match="under0 is called lan7 now"):
        state.sync()
    assert not state.settled


def test_the_mtu_of_the_parent_is_followed(state, namespace):
    with Monitor() as monitor:
        state.sync()
        settle(state, monitor)
        namespace.command("ip", "link", "set", "under0", "mtu", "9000")
        observe_until_unsettled(state, monitor)
        assert state.sync().changes == ("slh-blue: mtu: 1500 -> 9000",)


def test_what_does_not_concern_the_segment_is_told_from_what_does(state, under, namespace):
    state.sync()
    own = socket.if_nametoindex("slh-blue")
    network = ip_network("10.42.0.5/32")
    heeded = [
        RouteSeen(network, None),
        AddressesChanged(own),
        AddressesChanged(under),
        LinkGone(own, "slh-blue"),
        LinkChanged(4711, "slh-blue", 1500, up=True),
        LinkChanged(under, "under0", 1500, up=True),
        Overrun(),
    ]
    ignored = [
        RouteSeen(ip_network("10.77.0.1/32"), None),
        AddressesChanged(4711),
        LinkGone(4711, "veth7"),
        LinkChanged(4711, "veth7", 1500, up=True),
    ]
    assert [state.concerns(event) for event in (*heeded, *ignored)] == [True] * 7 + [False] * 4
    assert not any(state.observe(event) for event in ignored)
    assert state.settled


def test_what_the_kernel_repeats_of_the_parent_when_a_child_comes_costs_no_look(state, namespace):
    with Monitor() as monitor:
        state.sync()
        Links().make_child(MACVLAN)
        settle(state, monitor)
        Links().delete("sle-one")
        assert Links().make_child(MACVLAN)
        assert not any(state.observe(event) for event in monitor.events(1))


# -- another ground ---------------------------------------------------------------------------------------------------


def test_host_access_may_be_given_up_and_taken_up_again(state, under, namespace):
    state.sync()
    state.want_ground(ROUTED)
    report = state.sync()
    assert report.changes == ("slh-blue: gone",)
    assert not exists(namespace, "slh-blue")
    assert set(dump_routes()) == {ip_network("10.42.0.5/32"), ip_network("fd42::5/128")}
    state.want_ground(WITH_HOST)
    assert state.sync().changes == ("slh-blue: made",)
    assert dump_routes() == all_there(under)


def test_another_address_of_the_host_moves_the_routes_that_start_from_it(state, under):
    state.sync()
    other = ip_address("10.42.0.2")
    host = HostLink(CHILD, (other, OWN6))
    subnets = ((POOL, OnLink("slh-blue", other)), (POOL6, OnLink("slh-blue", OWN6)))
    state.want_ground(dataclasses.replace(WITH_HOST, host=host, subnets=subnets))
    report = state.sync()
    assert report.changes == ("slh-blue: address 10.42.0.1/32: gone", "slh-blue: address 10.42.0.2/32")
    assert (report.failed, report.pending) == (0, 0)
    assert dump_routes()[POOL] == Way(socket.if_nametoindex("slh-blue"), source=other)
    assert len(dump_routes()) == 4


# -- removed ----------------------------------------------------------------------------------------------------------


def test_remove_takes_the_routes_and_the_hosts_own_link_and_leaves_the_nic(state, namespace):
    state.sync()
    namespace.command("ip", "route", "add", "10.77.0.0/24", "via", "10.9.0.7", "proto", "90")
    assert state.remove() is False
    assert not exists(namespace, "slh-blue")
    assert exists(namespace, "under0")
    assert set(dump_routes()) == {ip_network("10.77.0.0/24")}
    assert state.remove() is False


def test_a_parent_of_ours_goes_with_the_hosts_own_link(namespace):
    ground = LanGround(
        (ISOLATED,),
        HostLink(dataclasses.replace(CHILD, parent="sli-blue"), (OWN,)),
        (POOL,),
        ((POOL, OnLink("slh-blue")),),
    )
    state = LanState(ground)
    assert state.sync().changes == ("made", "slh-blue: made")
    assert state.remove() is True
    assert not exists(namespace, "sli-blue")
    assert dump_routes() == {}


def test_links_that_other_segments_want_stay(namespace):
    ground = LanGround((ISOLATED,), HostLink(dataclasses.replace(CHILD, parent="sli-blue"), (OWN,)), (POOL,))
    state = LanState(ground)
    state.sync()
    assert state.remove(keep={"sli-blue"}) is False
    assert (exists(namespace, "sli-blue"), exists(namespace, "slh-blue")) == (True, False)
    assert state.sync().changes == ("slh-blue: made",)
    assert state.remove(keep={"slh-blue", "sli-blue"}) is False
    assert (exists(namespace, "sli-blue"), exists(namespace, "slh-blue")) == (True, True)


def test_a_foreign_link_in_place_of_the_hosts_own_keeps_the_rest_from_nothing(state, namespace):
    namespace.command("ip", "link", "add", "slh-blue", "link", "under0", "type", "macvlan", "mode", "bridge")
    with pytest.raises(Refuse, match="slh-blue was not made by spanlan"):
        state.sync()
    namespace.command("ip", "route", "add", "10.42.0.5", "via", "10.9.0.7", "proto", "90")
    with pytest.raises(Refuse, match="slh-blue was not made by spanlan"):
        state.remove()
    assert dump_routes() == {}
    assert show(namespace, "slh-blue")


# -- speed ------------------------------------------------------------------------------------------------------------


def test_one_change_among_ten_thousand_routes_costs_what_it_costs_among_ten(under):
    state = LanState(ROUTED)
    state.want_entries(
        Wanted(routes={ip_address("10.42.16.0") + number: (ONE, TWO)[number % 2] for number in range(10_000)})
    )
    report = state.sync()
    assert (report.written, report.failed) == (10_000, 0)
    took = []
    for number in range(20):
        started = time.perf_counter()
        state.want_entries(Wanted(routes={ip_address("10.42.20.5"): ip_address("10.9.0.20") + number}))
        assert state.sync().written == 1
        took.append(time.perf_counter() - started)
    assert min(took) < 0.02
    assert state.settled
