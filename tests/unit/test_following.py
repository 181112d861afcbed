"""A followed segment: what reaches the loop, and when whoever waits is told."""

import threading
from ipaddress import ip_address

import pytest

from spanlan.control.following import Following
from spanlan.drivers.vxlan import VxlanDriver
from spanlan.errors import Refuse
from spanlan.model.cluster import Endpoint, Member, Segment, Tunnel
from spanlan.model.host import TunnelAttachment
from spanlan.model.mac import derive_mac
from spanlan.store import codec, keys
from spanlan.store.base import Changes, Deleted, Entry, InSync, Lost, Snapshot

SEGMENT = Segment("blue", "vxlan", tunnel=Tunnel(42, 4789, 1450, 4))


@pytest.fixture
def following() -> Following:
    return Following(SEGMENT, TunnelAttachment("eth0", ip_address("192.0.2.1")), VxlanDriver(), "a")


def member(host: str, vtep: str) -> Entry:
    return Entry(keys.member("blue", host), codec.encode_member(Member("blue", host, (ip_address(vtep),), ("n",))), 1)


def endpoint(address: str, host: str) -> Entry:
    where = ip_address(address)
    record = Endpoint("blue", where, derive_mac("blue", where), host, f"id-{address}")
    return Entry(keys.endpoint("blue", where), codec.encode_endpoint(record), 2)


def in_sync(following: Following, *entries: Entry) -> None:
    following.take(Snapshot(entries, 5))
    following.take(InSync(5))


def test_nothing_is_asked_of_the_kernel_before_the_segment_is_in_sync(following: Following) -> None:
    took = following.take(Snapshot((member("b", "192.0.2.2"), endpoint("10.0.0.2", "b")), 5))
    assert not took.dirty
    assert not following.in_sync
    assert following.take(InSync(5)).dirty
    assert following.in_sync


def test_a_snapshot_becomes_entries(following: Following) -> None:
    in_sync(following, member("b", "192.0.2.2"), endpoint("10.0.0.2", "b"), endpoint("10.0.0.1", "a"))
    work = following.take_work()
    there = ip_address("10.0.0.2")
    assert {address: mac for address, mac in work.wanted.neighbours.items() if mac} == {
        there: derive_mac("blue", there)
    }
    assert {vtep for vtep in work.wanted.fdb.values() if vtep} == {ip_address("192.0.2.2")}


def test_that_something_of_this_host_went_from_the_store_is_told(following: Following) -> None:
    in_sync(following, member("a", "192.0.2.1"), endpoint("10.0.0.1", "a"), endpoint("10.0.0.2", "b"))

    def told(key: str) -> bool:
        return following.take(Changes((Deleted(key, 6),), 6)).ours

    assert not told(keys.endpoint("blue", ip_address("10.0.0.2")))
    assert not told(keys.endpoint("blue", ip_address("10.0.0.3")))
    assert not told(keys.member("blue", "b"))
    assert told(keys.endpoint("blue", ip_address("10.0.0.1")))
    assert told(keys.member("blue", "a"))


def test_an_endpoint_that_goes_is_wanted_no_more(following: Following) -> None:
    in_sync(following, member("b", "192.0.2.2"), endpoint("10.0.0.2", "b"))
    following.take_work()
    gone = ip_address("10.0.0.2")
    assert following.take(Changes((Deleted(keys.endpoint("blue", gone), 6),), 6)).dirty
    assert following.take_work().wanted.neighbours == {gone: None}


def test_an_ipv6_endpoint_is_found_again_by_its_key(following: Following) -> None:
    in_sync(following, member("b", "192.0.2.2"), endpoint("fd00::2", "b"))
    following.take_work()
    gone = ip_address("fd00::2")
    following.take(Changes((Deleted(keys.endpoint("blue", gone), 6),), 6))
    assert following.take_work().wanted.neighbours == {gone: None}


def test_the_loss_of_the_store_withdraws_nothing(following: Following) -> None:
    in_sync(following, member("b", "192.0.2.2"), endpoint("10.0.0.2", "b"))
    following.take_work()
    assert not following.take(Lost("no route")).dirty
    work = following.take_work()
    assert (work.wanted.neighbours, work.wanted.fdb) == ({}, {})
    assert following.lost == "no route"
    assert following.in_sync


def test_a_record_that_cannot_be_read_does_not_stop_the_others(following: Following) -> None:
    broken = Entry(keys.endpoint("blue", ip_address("10.0.0.9")), b"?", 2)
    in_sync(following, broken, member("b", "192.0.2.2"), endpoint("10.0.0.2", "b"))
    assert ip_address("10.0.0.2") in following.take_work().wanted.neighbours


def test_one_change_is_one_entry_of_work_on_a_large_segment(following: Following) -> None:
    many = [endpoint(f"10.0.{n // 250}.{n % 250 + 1}", "b") for n in range(5000)]
    in_sync(following, member("b", "192.0.2.2"), *many)
    following.take_work()
    following.take(Changes((endpoint("10.9.0.1", "b"),), 6))
    work = following.take_work()
    assert (len(work.wanted.neighbours), len(work.wanted.fdb)) == (1, 1)


class TestWaiting:
    def test_who_waits_is_told_when_a_pass_that_began_later_is_through(self, following: Following) -> None:
        in_sync(following)
        through = []
        waiter = threading.Thread(target=lambda: through.append(following.wait(10)))
        generation = following.take_work().generation
        waiter.start()
        following.finished(generation)
        waiter.join(timeout=10)
        assert through == [True]

    def test_a_pass_that_began_before_the_change_does_not_count(self, following: Following) -> None:
        in_sync(following)
        generation = following.take_work().generation
        following.take(Changes((member("b", "192.0.2.2"), endpoint("10.0.0.2", "b")), 6))
        following.finished(generation)
        assert following.wait(0.01) is False

    def test_before_the_segment_is_in_sync_nobody_is_told_anything(self, following: Following) -> None:
        assert following.wait(0.01) is False

    def test_what_the_pass_failed_with_reaches_who_waits_by_kind(self, following: Following) -> None:
        in_sync(following)
        generation = following.take_work().generation
        following.failed(generation, Refuse("VNI 42 is taken by vx0"))
        with pytest.raises(Refuse, match="taken by vx0"):
            following.wait(1)

    def test_after_a_failed_pass_everything_is_compared(self, following: Following) -> None:
        in_sync(following)
        following.take_work()
        following.failed(1, Refuse("no"))
        assert following.take_work().doubt
