"""What the kernel says when somebody else changes something."""

import socket
import struct
import threading
import time

import pytest

from example_links import BLUE, CHILD
from spanlan.kernel.links import Links
from spanlan.kernel.monitor import (
    AddressesChanged,
    FdbSeen,
    LinkChanged,
    LinkGone,
    Monitor,
    NeighbourSeen,
    Overrun,
    RouteSeen,
)
from spanlan.kernel.neighbours import SetNeighbour, write
from spanlan.kernel.routes import Way
from spanlan.model.address import ip_address, ip_network
from spanlan.model.mac import Mac, parse_mac

MAC = parse_mac("02:42:0a:2a:00:05")


@pytest.fixture
def device(namespace):
    return Links().ensure_vxlan(BLUE).index


def all_events(monitor):
    events = []
    while batch := monitor.events(0.05):
        events += batch
    return events


def changes(events):
    return [event[:4] for event in events if isinstance(event, LinkChanged)]


def test_neighbours_that_come_and_go_are_seen(namespace, device):
    with Monitor() as monitor:
        for address in ("10.42.0.5", "fd42::5"):
            namespace.command("ip", "neigh", "add", address, "lladdr", "02:42:0a:2a:00:05", "dev", "svx-blue")
            namespace.command("ip", "neigh", "del", address, "dev", "svx-blue")
        events = [event for event in all_events(monitor) if isinstance(event, NeighbourSeen)]
    for address in (ip_address("10.42.0.5"), ip_address("fd42::5")):
        own = [event for event in events if event.address == address]
        assert own[0] == NeighbourSeen(device, address, MAC)
        assert own[-1] == NeighbourSeen(device, address, None)


def test_fdb_entries_that_come_move_and_go_are_seen(namespace, device):
    entry = ("02:42:0a:2a:00:05", "dev", "svx-blue")
    with Monitor() as monitor:
        namespace.command("bridge", "fdb", "add", *entry, "dst", "10.9.0.2", "self", "permanent")
        namespace.command("bridge", "fdb", "replace", *entry, "dst", "10.9.0.3", "self", "permanent")
        namespace.command("bridge", "fdb", "del", *entry, "self")
        events = [event for event in all_events(monitor) if isinstance(event, FdbSeen)]
    seen = [event.vtep for event in events]
    assert all(event[:2] == (device, MAC) for event in events)
    assert (seen[0], seen[-1]) == (ip_address("10.9.0.2"), None)
    assert ip_address("10.9.0.3") in seen


def fdb_message(kind, *attributes, state=0x80):
    """What a kernel says of an FDB entry: an ndmsg with NTF_SELF for interface 7, and these attributes."""
    body = struct.pack("=BxxxiHBB", socket.AF_BRIDGE, 7, state, 0x02, 0)
    for number, content in attributes:
        body += (struct.pack("=HH", 4 + len(content), number) + content).ljust((len(content) + 7) & ~3, b"\0")
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_what_older_kernels_say_a_second_time_without_the_vtep_is_not_taken_for_an_entry_that_went(namespace):
    """Before Linux 6.13 each entry is told by the VXLAN driver, and again by rtnetlink in fewer words."""
    mac, vtep = Mac(parse_mac("02:42:0a:2a:00:05")), ip_address("10.9.0.2")
    told = (
        fdb_message(28, (2, mac), (1, vtep.packed)),
        fdb_message(28, (2, mac)),
        fdb_message(28, (2, mac), (13, b"\1\0\0\0")),  # through a next hop: truly an entry without a VTEP
        fdb_message(28, (2, mac), state=0x02),  # not permanent, so not ours
        fdb_message(29, (2, mac)),
    )
    seen = []
    with Monitor() as monitor:
        for message in told:
            monitor._parse(message, seen)
    assert seen == [FdbSeen(7, mac, vtep), *[FdbSeen(7, mac, None)] * 3]


def test_links_that_change_and_go_are_seen(namespace, device):
    with Monitor() as monitor:
        namespace.command("ip", "link", "set", "svx-blue", "mtu", "1400")
        namespace.command("ip", "link", "set", "svx-blue", "down")
        namespace.command("ip", "link", "del", "svx-blue")
        events = all_events(monitor)
    assert (device, "svx-blue", 1400, True) in changes(events)
    assert (device, "svx-blue", 1400, False) in changes(events)
    assert LinkGone(device, "svx-blue") in events


def test_what_the_kernel_says_again_when_a_child_comes_and_goes_can_be_told_from_a_change(namespace, device):
    with Monitor() as monitor:
        Links().make_child(CHILD)
        namespace.command("ip", "link", "set", "sep0", "up")
        Links().delete("sep0")
        again = [event for event in all_events(monitor) if isinstance(event, LinkChanged) and event[0] == device]
    assert len(again) >= 2
    assert len(set(again)) == 1


@pytest.mark.parametrize(
    "by_hand",
    [
        ("ip", "link", "set", "svx-blue", "mtu", "1400"),
        ("ip", "link", "set", "svx-blue", "alias", "spanlan segment=other"),
        ("ip", "link", "set", "svx-blue", "address", "02:00:00:00:00:99"),
        ("ip", "link", "set", "svx-blue", "addrgenmode", "eui64"),
        ("ip", "link", "set", "svx-blue", "type", "vxlan", "ttl", "9"),
        ("ip", "link", "set", "svx-blue", "type", "vxlan", "ageing", "77"),
        ("ip", "link", "set", "svx-blue", "down"),
    ],
    ids=lambda by_hand: " ".join(by_hand[3:]),
)
def test_each_setting_of_a_link_makes_a_difference_when_it_is_changed(namespace, device, by_hand):
    with Monitor() as monitor:
        Links().make_child(CHILD)
        before = [event for event in all_events(monitor) if isinstance(event, LinkChanged) and event[0] == device][-1]
        namespace.command(*by_hand)
        after = [event for event in all_events(monitor) if isinstance(event, LinkChanged) and event[0] == device]
    assert [event for event in after if event != before]


def test_a_link_that_is_moved_to_a_container_is_gone(namespace, device, new_namespace):
    child = Links().make_child(CHILD)
    with Monitor() as monitor:
        new_namespace().take("sep0", of=namespace)
        assert LinkGone(child, "sep0") in all_events(monitor)


def test_what_a_bridge_says_about_its_ports_is_not_taken_for_the_link(namespace, device):
    namespace.command("ip", "link", "add", "br0", "type", "bridge")
    namespace.command("ip", "link", "set", "wire0", "master", "br0")
    with Monitor() as monitor:
        namespace.command("bridge", "fdb", "add", "02:00:00:00:00:05", "dev", "wire0", "master", "static")
        namespace.command("ip", "link", "set", "wire0", "nomaster")
        events = all_events(monitor)
    assert LinkChanged in {type(event) for event in events}
    assert not [event for event in events if isinstance(event, LinkGone | FdbSeen)]


@pytest.mark.parametrize("address", ["10.9.0.77/24", "fd09::77/64"])
def test_addresses_that_come_and_go_are_seen(namespace, address):
    (under,) = namespace.json("ip", "-j", "link", "show", "dev", "under0")
    with Monitor() as monitor:
        namespace.command("ip", "addr", "add", address, "dev", "under0")
        assert AddressesChanged(under["ifindex"]) in all_events(monitor)
        namespace.command("ip", "addr", "del", address, "dev", "under0")
        assert AddressesChanged(under["ifindex"]) in all_events(monitor)


@pytest.mark.parametrize(
    ("destination", "hop", "other"),
    [("10.43.0.0/24", "10.9.0.7", "10.9.0.8"), ("fd43::/64", "fd09::7", "fd09::8")],
)
def test_routes_of_ours_that_come_move_and_go_are_seen_and_those_of_others_are_not(namespace, destination, hop, other):
    under = socket.if_nametoindex("under0")
    there = (destination, "dev", "under0", "via")
    with Monitor() as monitor:
        namespace.command("ip", "route", "add", *there, hop, "proto", "90")
        namespace.command("ip", "route", "replace", *there, other, "proto", "90")
        namespace.command("ip", "route", "del", destination)
        namespace.command("ip", "route", "add", *there, hop)
        namespace.command("ip", "route", "del", destination)
        namespace.command("ip", "route", "add", *there, hop, "proto", "90", "table", "42")
        events = [event for event in all_events(monitor) if isinstance(event, RouteSeen)]
    network = ip_network(destination)
    assert events == [
        RouteSeen(network, Way(under, ip_address(hop))),
        RouteSeen(network, Way(under, ip_address(other))),
        RouteSeen(network, None),
    ]


@pytest.mark.parametrize(("destination", "hop"), [("10.43.0.0/24", "10.9.0.7"), ("fd43::/64", "fd09::7")])
def test_a_route_that_somebody_elses_takes_the_place_of_is_seen_to_go(namespace, destination, hop):
    there = (destination, "dev", "under0", "via", hop)
    namespace.command("ip", "route", "add", *there, "proto", "90")
    with Monitor() as monitor:
        namespace.command("ip", "route", "replace", *there, "proto", "static")
        assert RouteSeen(ip_network(destination), None) in all_events(monitor)


def test_entries_of_interfaces_without_interest_are_thrown_away(namespace, device):
    with Monitor(lambda interface: interface != device) as monitor:
        write(device, [SetNeighbour(ip_address("10.42.0.5"), MAC)])
        namespace.command("ip", "neigh", "add", "10.9.0.2", "lladdr", "02:00:00:00:00:05", "dev", "under0")
        seen = {event.address for event in all_events(monitor) if isinstance(event, NeighbourSeen)}
    assert seen == {ip_address("10.9.0.2")}


def test_more_events_than_fit_are_told_as_an_overrun_and_it_goes_on(namespace, device):
    with Monitor(receive_buffer=4096) as monitor:
        write(device, [SetNeighbour(ip_address(0x0A2A0000 + number), MAC) for number in range(500)])
        assert Overrun() in all_events(monitor)
        namespace.command("ip", "link", "set", "svx-blue", "mtu", "1400")
        assert (device, "svx-blue", 1400, True) in changes(all_events(monitor))


def test_a_storm_of_ten_thousand_entries_is_seen_whole(namespace, device):
    steps = [
        SetNeighbour(ip_address(0x0A2A0000 + number), Mac(b"\x02\0" + number.to_bytes(4, "big")))
        for number in range(10_000)
    ]
    with Monitor() as monitor:
        write(device, steps)
        events = all_events(monitor)
    assert Overrun() not in events
    seen = {event.address: event.mac for event in events if isinstance(event, NeighbourSeen)}
    assert seen == {step.address: step.mac for step in steps}


def test_nothing_happening_is_an_empty_list_after_the_timeout(namespace):
    with Monitor() as monitor:
        all_events(monitor)
        started = time.monotonic()
        assert monitor.events(0.05) == []
        assert time.monotonic() - started >= 0.04


def test_closing_wakes_the_reader_at_once(namespace):
    monitor = Monitor()
    all_events(monitor)
    results = []
    reader = threading.Thread(target=lambda: results.append(monitor.events(60)))
    reader.start()
    while not monitor._reading:
        time.sleep(0.001)
    monitor.close()
    reader.join(5)
    assert results == [[]]
    assert monitor.closed
    assert monitor.events(60) == []
    monitor.close()
