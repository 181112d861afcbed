"""Unsolicited announcements, as neighbours hear them, on the real kernel."""

import socket
import threading
import time
from pathlib import Path

import pytest

from example_parents import MACVLAN
from spanlan.errors import Gone, Retry
from spanlan.kernel.announce import Announcement, announce, frame_for
from spanlan.kernel.links import Links
from spanlan.model.address import ip_address
from spanlan.model.mac import format_mac, parse_mac

ALIAS = "spanlan endpoint=one"
ADDRESS, ADDRESS6 = ip_address("10.9.0.5"), ip_address("fd09::5")
NEW, OLD = format_mac(MACVLAN.mac), "02:42:00:00:00:99"


@pytest.fixture
def container(namespace, new_namespace):
    """A container whose macvlan link is up under another name than it was made with."""
    inside = new_namespace()
    Links().make_child(MACVLAN)
    inside.take("sle-one", of=namespace)
    inside.command("ip", "link", "set", "sle-one", "name", "eth0")
    inside.command("ip", "link", "set", "eth0", "up")
    return inside


@pytest.fixture
def neighbour(namespace, new_namespace):
    """A neighbour on the wire who remembers the addresses with a MAC of the past."""
    other = new_namespace()
    other.take("wire0", of=namespace)
    other.command("ip", "link", "set", "wire0", "up")
    other.command("ip", "addr", "add", "10.9.0.2/24", "dev", "wire0")
    other.command("ip", "addr", "add", "fd09::2/64", "dev", "wire0", "nodad")
    remember(other, "wire0")
    return other


def remember(where, device):
    for address in (ADDRESS, ADDRESS6):
        where.command("ip", "neigh", "replace", str(address), "lladdr", OLD, "dev", device, "nud", "stale")


def remembered(where, device):
    return {entry["dst"]: entry["lladdr"] for entry in where.json("ip", "-j", "neigh", "show", "dev", device)}


def wait_until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)


def test_a_neighbour_learns_the_new_mac_of_both_families_at_once(namespace, container, neighbour):
    sent = announce(Announcement(ALIAS, (ADDRESS, ADDRESS6)), container.path, repeats=1)
    assert sent == 2
    wait_until(lambda: remembered(neighbour, "wire0") == {str(ADDRESS): NEW, str(ADDRESS6): NEW})


def test_another_container_on_the_same_parent_hears_it_too(namespace, container, new_namespace):
    namespace.command("ip", "link", "add", "sibling", "link", "under0", "type", "macvlan", "mode", "bridge")
    sibling = new_namespace()
    sibling.take("sibling", of=namespace)
    sibling.command("ip", "link", "set", "sibling", "up")
    sibling.command("ip", "addr", "add", "10.9.0.3/24", "dev", "sibling")
    sibling.command("ip", "addr", "add", "fd09::3/64", "dev", "sibling", "nodad")
    remember(sibling, "sibling")
    announce(Announcement(ALIAS, (ADDRESS, ADDRESS6)), container.path, repeats=1)
    wait_until(lambda: remembered(sibling, "sibling") == {str(ADDRESS): NEW, str(ADDRESS6): NEW})


def test_each_address_is_announced_as_often_as_asked_and_three_times_at_most(namespace, container, neighbour):
    with neighbour.entered():
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
    with ear:
        ear.bind(("wire0", 0x0806))
        assert announce(Announcement(ALIAS, (ADDRESS,)), container.path, repeats=9, pause=0.01) == 3
        ear.settimeout(5)
        assert [ear.recv(2048)[:42] for _ in range(3)] == [frame_for(ADDRESS, MACVLAN.mac)] * 3
        ear.settimeout(0.2)
        with pytest.raises(TimeoutError):
            ear.recv(2048)


def test_a_link_that_is_still_on_its_way_is_waited_for(namespace, new_namespace, neighbour):
    inside = new_namespace()
    Links().make_child(MACVLAN)
    sent = []
    waiting = threading.Thread(
        target=lambda: sent.append(announce(Announcement(ALIAS, (ADDRESS,)), inside.path, repeats=1, patience=20))
    )
    waiting.start()
    inside.take("sle-one", of=namespace)
    inside.command("ip", "link", "set", "sle-one", "up")
    waiting.join(20)
    assert sent == [1]


def test_a_link_that_does_not_come_up_in_time_may_be_tried_again(namespace, new_namespace):
    Links().make_child(MACVLAN)
    with pytest.raises(Retry, match="link is still down"):
        announce(Announcement(ALIAS, (ADDRESS,)), patience=0.05)
    with pytest.raises(Retry, match="link is not there in /proc/"):
        announce(Announcement(ALIAS, (ADDRESS,)), new_namespace().path, patience=0.05)


def test_a_namespace_that_does_not_come_in_time_is_said_to_be_gone(namespace, tmp_path):
    with pytest.raises(Gone, match="no-such-sandbox: it is not there"):
        announce(Announcement(ALIAS, (ADDRESS,)), str(tmp_path / "no-such-sandbox"), patience=0.05)
    plain = tmp_path / "plain"
    plain.write_text("")
    with pytest.raises(Gone, match="plain: it is not there"):
        announce(Announcement(ALIAS, (ADDRESS,)), str(plain), patience=0.05)


def test_a_namespace_that_dockerd_has_yet_to_make_is_waited_for(namespace, container, neighbour, tmp_path):
    key = tmp_path / "sandbox"
    sent = []
    waiting = threading.Thread(
        target=lambda: sent.append(announce(Announcement(ALIAS, (ADDRESS,)), str(key), repeats=1, patience=20))
    )
    waiting.start()
    key.write_text("")  # as dockerd does: an empty file first, on which the namespace is mounted then
    (tmp_path / "mounted").symlink_to(container.path)
    (tmp_path / "mounted").rename(key)
    waiting.join(20)
    assert sent == [1]
    wait_until(lambda: remembered(neighbour, "wire0")[str(ADDRESS)] == NEW)


def test_a_link_without_arp_announces_nothing(namespace):
    Links().make_child(MACVLAN)
    namespace.command("ip", "link", "set", "sle-one", "arp", "off", "up")
    assert announce(Announcement(ALIAS, (ADDRESS,))) == 0


def test_without_addresses_nothing_is_done(namespace):
    assert announce(Announcement(ALIAS, ()), "/no/such/place") == 0


def test_the_caller_stays_in_its_namespace_and_no_descriptor_is_left(namespace, container):
    def here():
        return Path("/proc/thread-self/ns/net").readlink(), len(list(Path("/proc/self/fd").iterdir()))

    before = here()
    announce(Announcement(ALIAS, (ADDRESS,)), container.path, repeats=1)
    assert here() == before


def test_the_frames_are_those_of_the_standards():
    mac = parse_mac("02:42:0a:09:00:05")
    assert frame_for(ADDRESS, mac).hex() == (
        "ffffffffffff02420a0900050806000108000604000102420a0900050a0900050000000000000a090005"
    )
    frame = frame_for(ADDRESS6, mac)
    assert frame[:14].hex() == "33330000000102420a09000586dd"
    assert frame[14:22].hex() == "6000000000203aff"
    assert frame[54:56].hex() == "8800"
    assert frame[58:].hex() == "20000000" + ADDRESS6.packed.hex() + "020102420a090005"
