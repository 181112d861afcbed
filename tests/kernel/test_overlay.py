"""Wanted, found, difference, apply: one segment's device and entries."""

import dataclasses

import pytest

from example_links import BLUE, CHILD
from spanlan.errors import Refuse
from spanlan.kernel.links import Links
from spanlan.kernel.monitor import FdbSeen, LinkChanged, LinkGone, Monitor, NeighbourSeen, Overrun
from spanlan.kernel.neighbours import DropFdb, DropNeighbour, SetFdb, SetNeighbour, dump_fdb, dump_neighbours, write
from spanlan.kernel.overlay import OverlayState
from spanlan.model.address import ip_address
from spanlan.model.host import Overlay
from spanlan.model.mac import Mac, format_mac, parse_mac

MAC = parse_mac("02:42:0a:2a:00:05")
ADDRESS = ip_address("10.42.0.5")
ADDRESS6 = ip_address("fd42::5")
HERE = ip_address("10.9.0.2")
THERE = ip_address("10.9.0.3")


def overlay(count=3):
    """What is wanted of a segment with ``count`` remote endpoints."""
    wanted = Overlay(BLUE)
    for number in range(count):
        mac = Mac(b"\x02\x42\x0a\x2a" + number.to_bytes(2, "big"))
        wanted.neighbours[ip_address(0x0A2A0000 + number)] = mac
        wanted.fdb[mac] = HERE
    return wanted


def in_kernel(index):
    return dump_neighbours(index), dump_fdb(index)


@pytest.fixture
def state(namespace):
    wanted = overlay()
    fresh = OverlayState(BLUE)
    fresh.want(wanted)
    return fresh


def test_a_sync_makes_the_device_and_all_entries(state):
    report = state.sync()
    wanted = overlay()
    assert in_kernel(report.index) == (wanted.neighbours, wanted.fdb)
    assert report.changes == ("made",)
    assert (report.written, report.dropped, report.failed, report.pending) == (6, 0, 0, 0)
    assert state.settled


def test_a_second_sync_finds_nothing_to_do(state):
    state.sync()
    report = state.sync()
    assert (report.changes, report.written, report.dropped, report.reasons) == ((), 0, 0, ())


def test_one_remote_endpoint_more_is_two_entries_written(state):
    index = state.sync().index
    state.want_fdb(MAC, HERE)
    state.want_neighbour(ADDRESS, MAC)
    state.want_neighbour(ADDRESS6, MAC)
    assert not state.settled
    assert state.sync().written == 3
    assert dump_neighbours(index)[ADDRESS6] == MAC


def test_an_endpoint_that_moves_to_another_host_is_one_entry_written(state):
    index = state.sync().index
    mac = overlay().neighbours[ip_address("10.42.0.1")]
    state.want_fdb(mac, THERE)
    report = state.sync()
    assert (report.written, report.dropped) == (1, 0)
    assert dump_fdb(index)[mac] == THERE


def test_an_endpoint_that_goes_is_taken_out(state):
    index = state.sync().index
    state.want(overlay(1))
    report = state.sync()
    assert (report.written, report.dropped) == (0, 4)
    assert in_kernel(index) == (overlay(1).neighbours, overlay(1).fdb)


def test_a_daemon_without_memory_takes_over_what_it_finds(state):
    index = state.sync().index
    write(index, [SetNeighbour(ADDRESS, MAC), SetFdb(MAC, HERE)])  # an endpoint that left while we were away
    state.want_fdb(MAC, None)
    reborn = OverlayState(BLUE)
    reborn.want(overlay())
    report = reborn.sync()
    assert report.index == index
    assert (report.changes, report.written, report.dropped) == ((), 0, 2)
    assert in_kernel(index) == (overlay().neighbours, overlay().fdb)


def test_a_sync_may_be_done_in_small_pieces(state):
    reports = [state.sync(limit=2) for _ in range(3)]
    assert [report.written for report in reports] == [2, 2, 2]
    assert [report.pending for report in reports] == [4, 2, 0]


def test_the_way_to_a_mac_is_there_before_the_address_that_leads_to_it_and_goes_after_it(state):
    state.sync()
    state.want(Overlay(BLUE, {ADDRESS: MAC}, {MAC: HERE}))
    kinds = [type(step) for step in state.difference().steps]
    assert kinds == [SetFdb, SetNeighbour, *[DropNeighbour] * 3, *[DropFdb] * 3]


def test_an_entry_that_cannot_be_written_stays_pending_and_the_others_are_written(state):
    state.want_fdb(MAC, ip_address("fd09::2"))
    report = state.sync()
    assert (report.written, report.failed, report.pending) == (6, 1, 1)
    (reason,) = report.reasons
    assert format_mac(MAC) in reason
    assert "fd09::2" in reason
    state.want_fdb(MAC, HERE)
    assert state.sync().pending == 0
    assert state.settled


def test_many_entries_that_fail_for_one_reason_are_told_once(state):
    for number in range(50):
        state.want_fdb(Mac(bytes([2, 0, 0, 0, 1, number])), ip_address("fd09::2"))
    report = state.sync()
    assert report.failed == 50
    (reason,) = report.reasons
    assert reason.endswith("(and 49 more)")


# -- drift ------------------------------------------------------------------------------------------------------------


def watch(state, monitor, until):
    """Hand events to the state until a condition holds, as the loop does."""
    for _ in range(200):
        for event in monitor.events(0.05):
            state.observe(event)
        if until():
            return
    pytest.fail("the monitor saw nothing of it")


@pytest.mark.parametrize(
    "by_hand",
    [
        ("ip", "neigh", "del", "10.42.0.1", "dev", "svx-blue"),
        ("ip", "neigh", "replace", "10.42.0.1", "lladdr", "02:00:00:00:00:99", "dev", "svx-blue", "nud", "permanent"),
        ("ip", "neigh", "replace", "10.42.0.1", "lladdr", "02:42:0a:2a:00:01", "dev", "svx-blue", "nud", "stale"),
        ("ip", "neigh", "add", "10.42.9.9", "lladdr", "02:00:00:00:00:99", "dev", "svx-blue", "nud", "permanent"),
        ("ip", "neigh", "flush", "dev", "svx-blue", "nud", "permanent"),
        ("bridge", "fdb", "del", "02:42:0a:2a:00:01", "dev", "svx-blue", "self"),
        ("bridge", "fdb", "replace", "02:42:0a:2a:00:01", "dev", "svx-blue", "dst", "10.9.0.9", "self", "permanent"),
        ("bridge", "fdb", "add", "02:00:00:00:00:77", "dev", "svx-blue", "dst", "10.9.0.9", "self", "permanent"),
        ("ip", "link", "set", "svx-blue", "down"),
        ("ip", "link", "set", "svx-blue", "mtu", "1000"),
        ("ip", "link", "set", "svx-blue", "alias", "spanlan was here"),
        ("ip", "link", "del", "svx-blue"),
    ],
    ids=" ".join,
)
def test_what_is_changed_by_hand_is_seen_and_put_back(namespace, state, by_hand):
    wanted = overlay()
    wanted.neighbours[ADDRESS6] = MAC
    wanted.fdb[MAC] = THERE
    state.want(wanted)
    with Monitor() as monitor:
        state.sync()
        watch(state, monitor, lambda: state.sync() and state.settled)
        namespace.command(*by_hand)
        watch(state, monitor, lambda: not state.settled)
        index = state.sync().index
        watch(state, monitor, lambda: state.sync() and state.settled)
    assert in_kernel(index) == (wanted.neighbours, wanted.fdb)
    (device,) = namespace.json("ip", "-j", "link", "show", "dev", "svx-blue")
    assert (device["mtu"], device["ifalias"], "UP" in device["flags"]) == (1450, BLUE.alias, True)


def test_a_device_deleted_by_hand_is_made_again_and_filled_also_when_nobody_told(namespace, state):
    before = state.sync().index
    namespace.command("ip", "link", "del", "svx-blue")
    state.want_fdb(MAC, HERE)
    report = state.sync()
    assert report.index != before
    assert report.changes == ("made",)
    assert len(dump_fdb(report.index)) == 4


def test_a_device_that_had_to_be_mended_has_its_entries_read_again(namespace, state):
    """Setting a device down flushes its neighbours; here nobody tells that, only that the device changed."""
    index = state.sync().index
    namespace.command("ip", "link", "set", "svx-blue", "down")
    state.observe(LinkChanged(index, "svx-blue", 1450, up=False))
    report = state.sync()
    assert (report.changes, report.written) == (("state: down -> up",), 3)
    assert in_kernel(index) == (overlay().neighbours, overlay().fdb)


def test_a_child_that_comes_and_goes_is_no_reason_to_look_at_the_device(namespace, state):
    with Monitor() as monitor:
        state.sync()
        watch(state, monitor, lambda: state.sync() and state.settled)
        Links().make_child(CHILD)
        watch(state, monitor, lambda: state.sync() and state.settled)
        Links().delete(CHILD.name)
        Links().make_child(CHILD)
        again = [event for event in monitor.events(0.2) if isinstance(event, LinkChanged) and event.name == "svx-blue"]
        assert len(again) >= 2
        assert [state.observe(event) for event in again] == [False] * len(again)
        namespace.command("ip", "link", "set", "svx-blue", "alias", "spanlan segment=other")
        watch(state, monitor, lambda: not state.settled)
        assert "alias" in state.sync().changes[0]


def test_what_was_heard_counts_for_nothing_once_all_is_in_doubt(namespace, state):
    index = state.sync().index
    heard = LinkChanged(index, "svx-blue", 1450, up=True)
    assert state.observe(heard) is True
    state.sync()
    assert state.observe(heard) is False
    state.doubt()
    state.sync()
    assert state.observe(heard) is True


def test_a_device_made_anew_is_filled_again(namespace, state):
    state.sync()
    state.want_link(dataclasses.replace(BLUE, vni=77))
    report = state.sync()
    assert "vni is 4200, must be 77" in report.changes[0]
    assert report.written == 6
    assert in_kernel(report.index) == (overlay().neighbours, overlay().fdb)


def test_an_underlay_that_goes_and_comes_back_brings_the_segment_back(namespace, state):
    with Monitor() as monitor:
        state.sync()
        watch(state, monitor, lambda: state.sync() and state.settled)
        namespace.command("ip", "link", "del", "under0")
        watch(state, monitor, lambda: not state.settled)
        with pytest.raises(Refuse, match="its underlay under0 is not there"):
            state.sync()
        namespace.command("ip", "link", "add", "under0", "type", "veth", "peer", "name", "wire0")
        watch(state, monitor, lambda: not state.settled)
        report = state.sync()
    assert in_kernel(report.index) == (overlay().neighbours, overlay().fdb)


def test_our_own_writes_seen_again_start_no_new_work(namespace, state):
    with Monitor() as monitor:
        state.sync()
        watch(state, monitor, lambda: state.sync() and state.settled)
        for event in monitor.events(0.05):
            assert state.observe(event) is False
        assert state.settled


def test_after_lost_events_the_next_sync_reads_the_kernel_again(namespace, state):
    index = state.sync().index
    write(index, [DropFdb(mac) for mac in overlay().fdb])
    assert state.settled
    assert state.observe(Overrun()) is True
    assert state.sync().written == 3


def test_events_of_other_devices_are_none_of_its_business(namespace, state):
    state.sync()
    other = Links().ensure_vxlan(dataclasses.replace(BLUE, name="svx-red", vni=7)).index
    with Monitor() as monitor:
        write(other, [SetNeighbour(ADDRESS, MAC), SetFdb(MAC, HERE)])
        Links().delete("svx-red")
        events = [event for event in monitor.events(1) if event[0] == other]
    assert {type(event) for event in events} >= {NeighbourSeen, FdbSeen, LinkGone}
    assert {state.observe(event) for event in events} == {False}


# -- looking without touching -----------------------------------------------------------------------------------------


def test_the_difference_is_told_without_changing_anything(namespace, state):
    index = state.sync().index
    write(index, [DropNeighbour(ip_address("10.42.0.1")), SetFdb(MAC, HERE)])
    namespace.command("ip", "link", "set", "svx-blue", "mtu", "1400")
    before = in_kernel(index)
    doctor = OverlayState(BLUE)
    doctor.want(overlay())
    difference = doctor.difference()
    assert difference.index == index
    assert difference.link == ("mtu: 1400 -> 1450",)
    assert difference.steps == (
        SetNeighbour(ip_address("10.42.0.1"), overlay().neighbours[ip_address("10.42.0.1")]),
        DropFdb(MAC),
    )
    assert in_kernel(index) == before


def test_the_difference_of_a_device_that_is_not_there_is_everything(namespace, state):
    difference = state.difference()
    assert (difference.index, difference.link, len(difference.steps)) == (None, ("not there",), 6)
    assert Links().ours() == []


def test_after_a_difference_the_sync_does_it(namespace, state):
    assert len(state.difference().steps) == state.sync().written


# -- the end ----------------------------------------------------------------------------------------------------------


def test_removing_a_segment_leaves_no_device_and_no_child(namespace, state):
    state.sync()
    Links().make_child(CHILD)
    assert state.remove() is True
    assert Links().ours() == []
    assert state.remove() is False


def test_a_foreign_device_in_the_way_is_neither_written_to_nor_removed(namespace, state):
    namespace.command("ip", "link", "add", "svx-blue", "type", "vxlan", "id", "4200", "dstport", "4789")
    for attempt in (state.sync, state.difference, state.remove):
        with pytest.raises(Refuse, match="svx-blue was not made by spanlan"):
            attempt()
    assert namespace.json("bridge", "-j", "fdb", "show", "dev", "svx-blue") == []
