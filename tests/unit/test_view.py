"""This host's picture of a segment: what a change touches, and no more."""

import random
from ipaddress import ip_address

from spanlan.model.cluster import Endpoint, Member
from spanlan.model.mac import derive_mac
from spanlan.model.view import SegmentView


def member(host: str, vtep: str = "192.0.2.1", networks: tuple[str, ...] = ("n",)) -> Member:
    return Member("blue", host, (ip_address(vtep),), networks)


def endpoint(number: int, host: str) -> Endpoint:
    address = ip_address(f"10.0.{number // 256}.{number % 256}")
    return Endpoint("blue", address, derive_mac("blue", address), host, f"e{number}")


def test_a_peer_that_moves_is_a_change_though_its_key_is_the_same() -> None:
    view = SegmentView()
    view.replace([], [endpoint(1, "a")])
    touched = view.replace([], [endpoint(1, "b")])
    assert touched.addresses == {endpoint(1, "b").address}
    assert view.endpoints[endpoint(1, "b").address].host == "b"


def test_a_snapshot_that_says_nothing_new_touches_nothing() -> None:
    view = SegmentView()
    view.replace([member("a")], [endpoint(1, "a"), endpoint(2, "a")])
    assert not view.replace([member("a")], [endpoint(2, "a"), endpoint(1, "a")])


def test_what_a_snapshot_no_longer_holds_has_vanished() -> None:
    view = SegmentView()
    view.replace([member("a")], [endpoint(1, "a"), endpoint(2, "a")])
    touched = view.replace([member("a")], [endpoint(2, "a")])
    assert touched.addresses == {endpoint(1, "a").address}
    assert touched.macs == {endpoint(1, "a").mac}


def test_one_change_touches_one_entry_of_each_table() -> None:
    view = SegmentView()
    view.replace([member("a")], [endpoint(number, "a") for number in range(1000)])
    touched = view.put_endpoint(endpoint(7, "b"))
    assert (len(touched.addresses), len(touched.macs)) == (1, 1)


def test_a_vtep_that_changes_touches_the_endpoints_behind_it_and_no_others() -> None:
    view = SegmentView()
    view.replace([member("a"), member("b")], [endpoint(1, "a"), endpoint(2, "b"), endpoint(3, "b")])
    touched = view.put_member(member("b", "192.0.2.9"))
    assert touched.addresses == {endpoint(2, "b").address, endpoint(3, "b").address}


def test_a_member_with_one_more_network_touches_nothing() -> None:
    view = SegmentView()
    view.replace([member("a")], [endpoint(1, "a")])
    assert not view.put_member(member("a", networks=("n", "m")))


def test_withdrawing_a_host_and_taking_it_back_touches_its_endpoints_both_times() -> None:
    view = SegmentView()
    view.replace([member("a"), member("b")], [endpoint(1, "a"), endpoint(2, "b")])
    assert view.withdraw(frozenset({"b"})).addresses == {endpoint(2, "b").address}
    assert not view.withdraw(frozenset({"b"}))
    assert view.withdraw(frozenset()).addresses == {endpoint(2, "b").address}


def test_both_addresses_of_a_dual_stack_container_stand_behind_its_mac() -> None:
    view = SegmentView()
    four = endpoint(1, "a")
    six = Endpoint("blue", ip_address("fd00::1"), four.mac, "a", "e1")
    view.replace([member("a")], [four, six])
    assert set(view.holders_of(four.mac)) == {four, six}
    view.drop_endpoint(four.address)
    assert view.holders_of(four.mac) == (six,)
    view.drop_endpoint(six.address)
    assert view.holders_of(four.mac) == ()


def test_changes_one_by_one_end_where_a_snapshot_of_the_result_does() -> None:
    dice = random.Random(7)  # noqa: S311 - the same sequence each time
    view = SegmentView()
    truth: dict[int, Endpoint] = {}
    for _ in range(2000):
        number = dice.randrange(60)
        if dice.random() < 0.4:
            truth.pop(number, None)
            view.drop_endpoint(endpoint(number, "a").address)
        else:
            truth[number] = endpoint(number, dice.choice("abc"))
            view.put_endpoint(truth[number])
    assert not view.replace([], truth.values())
    fresh = SegmentView()
    fresh.replace([], truth.values())
    assert fresh.endpoints == view.endpoints
    for each in truth.values():
        assert view.holders_of(each.mac) == fresh.holders_of(each.mac)
