"""Segments in the store, founded and left by several hosts."""

import threading
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from spanlan.control.segments import FIRST_VNI, Segments
from spanlan.errors import Refuse
from spanlan.model.cluster import Endpoint, Segment, Tunnel
from spanlan.model.mac import derive_mac
from spanlan.store import codec, keys
from spanlan.store.base import DeletePrefix
from spanlan.store.sqlite import SqliteStore

VTEP = (ip_address("192.0.2.1"),)


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "cluster.db")


def segment(name: str, vni: int) -> Segment:
    return Segment(name, "vxlan", tunnel=Tunnel(vni, 4789, 1450, 4))


def vni_of(of: Segment) -> int:
    assert of.tunnel is not None
    return of.tunnel.vni


def join(store: SqliteStore, host: str, name: str, network: str, vni: int | None = None) -> Segment:
    segments = Segments(store, host)
    return segments.join(
        name,
        network,
        found=lambda: segment(name, vni or segments.free_vni([])),
        fits=lambda _: VTEP,
        vni_given=vni is not None,
    )


def test_the_second_host_gets_what_the_first_one_founded(store: SqliteStore) -> None:
    assert join(store, "a", "blue", "n1") == join(store, "b", "blue", "n2")
    members = [codec.decode_member(entry) for entry in store.range(keys.members("blue")).entries]
    assert [(member.host, member.networks) for member in members] == [("a", ("n1",)), ("b", ("n2",))]


def test_joining_twice_is_joining_once(store: SqliteStore) -> None:
    join(store, "a", "blue", "n1")
    join(store, "a", "blue", "n1")
    Segments(store, "a").leave("blue", "n1")
    assert store.range("/").entries == ()


def test_the_last_to_leave_takes_everything_along(store: SqliteStore) -> None:
    join(store, "a", "blue", "n1")
    join(store, "a", "blue", "n3")
    join(store, "b", "blue", "n2")
    Segments(store, "a").leave("blue", "n1")
    Segments(store, "b").leave("blue", "n2")
    assert Segments(store, "a").find("blue") is not None
    Segments(store, "a").leave("blue", "n3")
    assert store.range("/").entries == ()


def test_leaving_twice_is_no_error(store: SqliteStore) -> None:
    join(store, "a", "blue", "n1")
    for _ in range(2):
        Segments(store, "a").leave("blue", "n1")


def test_a_vni_of_another_segment_is_refused_with_its_name(store: SqliteStore) -> None:
    join(store, "a", "blue", "n1", vni=42)
    with pytest.raises(Refuse, match="option vni=42: that VNI belongs to segment blue"):
        join(store, "b", "red", "n2", vni=42)


def test_vnis_are_handed_out_in_order_round_those_that_are_taken(store: SqliteStore) -> None:
    join(store, "a", "blue", "n1", vni=FIRST_VNI)
    join(store, "a", "green", "n2", vni=FIRST_VNI + 2)
    assert vni_of(join(store, "a", "red", "n3")) == FIRST_VNI + 1
    assert vni_of(join(store, "a", "pink", "n4")) == FIRST_VNI + 3
    assert Segments(store, "a").free_vni([FIRST_VNI + 4]) == FIRST_VNI + 5


def test_a_vni_is_found_beyond_more_than_a_page_of_taken_ones(store: SqliteStore) -> None:
    from spanlan.store.base import Put

    for start in range(0, 1200, 100):
        store.commit([], [Put(keys.vni(FIRST_VNI + start + each), b'{"segment":"x"}') for each in range(100)])
    assert Segments(store, "a").free_vni([]) == FIRST_VNI + 1200


def test_a_segment_that_others_made_anew_is_not_rejoined_by_who_still_has_the_old_one(store: SqliteStore) -> None:
    old = join(store, "a", "blue", "n1", vni=42)
    store.commit([], [DeletePrefix("/")])
    join(store, "b", "blue", "n2", vni=43)
    with pytest.raises(Refuse, match=r"segment blue was made anew .*VNI 43.*VNI 42.*docker network rm"):
        Segments(store, "a").restore_member(old, VTEP, ["n1"])
    assert store.get(keys.member("blue", "a")) is None


def test_a_segment_whose_vni_went_to_another_one_is_not_rejoined(store: SqliteStore) -> None:
    old = join(store, "a", "blue", "n1", vni=42)
    store.commit([], [DeletePrefix("/")])
    join(store, "b", "red", "n2", vni=42)
    with pytest.raises(Refuse, match="VNI belongs to segment red"):
        Segments(store, "a").restore_member(old, VTEP, ["n1"])


def test_a_segment_that_was_lost_is_rejoined_with_all_networks(store: SqliteStore) -> None:
    old = join(store, "a", "blue", "n1")
    store.commit([], [DeletePrefix("/")])
    Segments(store, "a").restore_member(old, VTEP, ["n1", "n3"])
    there = Segments(store, "b").find("blue")
    assert there is not None
    assert there[0] == old
    assert codec.decode_member(store.range(keys.members("blue")).entries[0]).networks == ("n1", "n3")


def test_hosts_that_joined_before_and_after_a_pool_was_added_both_rejoin_a_lost_segment(store: SqliteStore) -> None:
    four, six = ip_network("10.0.0.0/24"), ip_network("fd00::/64")
    early, late = (replace(segment("blue", 42), pools=pools) for pools in ((four,), (four, six)))
    Segments(store, "a").restore_member(early, VTEP, ["n1"])
    Segments(store, "b").restore_member(late, VTEP, ["n2"])
    Segments(store, "c").restore_member(early, VTEP, ["n3"])
    there = Segments(store, "a").find("blue")
    assert there is not None
    assert there[0] == late
    assert len(store.range(keys.members("blue")).entries) == 3


def test_leaving_with_a_network_that_never_joined_changes_nothing(store: SqliteStore) -> None:
    join(store, "a", "blue", "n1")
    before = store.range("/")
    Segments(store, "a").leave("blue", "n2")
    assert store.range("/") == before


def test_twenty_hosts_that_found_segments_at_once_get_twenty_vnis(store: SqliteStore) -> None:
    got: list[int] = []
    threads = [
        threading.Thread(target=lambda n=number: got.append(vni_of(join(store, f"h{n}", f"s{n}", "n"))))
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(set(got)) == 20


def test_one_segment_joined_and_left_by_many_at_once_is_gone_in_the_end(store: SqliteStore) -> None:
    failures: list[Exception] = []

    def come_and_go(host: str) -> None:
        try:
            for turn in range(5):
                join(store, host, "blue", f"n{turn}")
                Segments(store, host).leave("blue", f"n{turn}")
        except Exception as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    threads = [threading.Thread(target=come_and_go, args=(f"h{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert failures == []
    assert store.range("/").entries == ()


class TestClaims:
    def endpoint(self, address: str, host: str, which: str) -> Endpoint:
        where = ip_address(address)
        return Endpoint("blue", where, derive_mac("blue", where), host, which)

    def test_an_address_claimed_twice_goes_to_the_first_and_the_second_learns_the_holder(
        self, store: SqliteStore
    ) -> None:
        Segments(store, "a").claim([self.endpoint("10.0.0.1", "a", "e1")], takes_over=lambda _: False)
        with pytest.raises(Refuse, match=r"10.0.0.1 on segment blue is held by endpoint e1 on host a"):
            Segments(store, "b").claim([self.endpoint("10.0.0.1", "b", "e2")], takes_over=lambda _: False)

    def test_of_two_addresses_none_is_claimed_if_one_is_held(self, store: SqliteStore) -> None:
        Segments(store, "a").claim([self.endpoint("fd00::1", "a", "e1")], takes_over=lambda _: False)
        both = [self.endpoint("10.0.0.2", "b", "e2"), self.endpoint("fd00::1", "b", "e2")]
        with pytest.raises(Refuse, match="fd00::1"):
            Segments(store, "b").claim(both, takes_over=lambda _: False)
        assert len(store.range(keys.endpoints("blue")).entries) == 1

    def test_a_claim_that_is_repeated_succeeds(self, store: SqliteStore) -> None:
        for _ in range(2):
            Segments(store, "a").claim([self.endpoint("10.0.0.1", "a", "e1")], takes_over=lambda _: False)

    def test_a_remnant_is_taken_over(self, store: SqliteStore) -> None:
        Segments(store, "a").claim([self.endpoint("10.0.0.1", "a", "e1")], takes_over=lambda _: False)
        Segments(store, "a").claim([self.endpoint("10.0.0.1", "a", "e2")], takes_over=lambda held: held.host == "a")
        assert codec.decode_endpoint(store.range(keys.endpoints("blue")).entries[0]).endpoint_id == "e2"

    def test_a_late_withdrawal_leaves_the_next_holder_alone(self, store: SqliteStore) -> None:
        where = ip_address("10.0.0.1")
        Segments(store, "b").claim([self.endpoint("10.0.0.1", "b", "e2")], takes_over=lambda _: False)
        Segments(store, "a").withdraw("blue", where, "e1")
        assert len(store.range(keys.endpoints("blue")).entries) == 1
        Segments(store, "b").withdraw("blue", where, "e2")
        assert store.range("/").entries == ()


class TestSubnets:
    def join_with(self, store: SqliteStore, host: str, *subnets: str) -> Segment:
        return Segments(store, host).join(
            "blue",
            f"n-{host}-{subnets[0]}",
            found=lambda: segment("blue", 42),
            fits=lambda _: VTEP,
            pools=[ip_network(subnet) for subnet in subnets],
        )

    def test_a_host_with_another_subnet_is_refused_with_the_segments_own(self, store: SqliteStore) -> None:
        self.join_with(store, "a", "10.64.0.0/20")
        with pytest.raises(
            Refuse, match=r"subnet 10\.64\.16\.0/20: segment blue has 10\.64\.0\.0/20.*--ipam-opt segment="
        ):
            self.join_with(store, "b", "10.64.16.0/20")
        assert len(store.range(keys.members("blue")).entries) == 1

    def test_a_second_family_is_added_and_binds_the_next_host(self, store: SqliteStore) -> None:
        self.join_with(store, "a", "10.64.0.0/20")
        both = self.join_with(store, "b", "10.64.0.0/20", "fd00::/64")
        assert both.pools == (ip_network("10.64.0.0/20"), ip_network("fd00::/64"))
        with pytest.raises(Refuse, match="fd01::/64"):
            self.join_with(store, "c", "10.64.0.0/20", "fd01::/64")

    def test_the_first_network_may_have_several_subnets(self, store: SqliteStore) -> None:
        self.join_with(store, "a", "10.64.0.0/24", "10.64.1.0/24")
        assert self.join_with(store, "b", "10.64.1.0/24").pools == (
            ip_network("10.64.0.0/24"),
            ip_network("10.64.1.0/24"),
        )


def test_an_address_is_given_back_by_its_own_host_alone(store: SqliteStore) -> None:
    """The hosts' own endpoints (host_access) have one id on a segment, and only the host tells them apart."""
    address = ip_address("10.0.0.250")
    place = Endpoint("blue", address, None, "b", "host-access.blue")
    Segments(store, "b").claim([place], lambda _: False)
    Segments(store, "a").withdraw("blue", address, "host-access.blue")
    assert Segments(store, "a").endpoint("blue", address) == place
    Segments(store, "b").withdraw("blue", address, "host-access.blue")
    assert Segments(store, "a").endpoint("blue", address) is None


def test_an_address_that_is_held_names_its_holder_and_the_cure(store: SqliteStore) -> None:
    address = ip_address("10.0.0.250")
    hosts_own = Endpoint("blue", address, None, "b", "host-access.blue")
    Segments(store, "b").claim([hosts_own], lambda _: False)
    ours = Segments(store, "a")
    with pytest.raises(Refuse, match=r"is held by the host b itself \(host_access\): choose another with --ip"):
        ours.claim([Endpoint("blue", address, None, "a", "e1")], lambda _: False)
    with pytest.raises(Refuse, match=r"itself \(host_access\): name a free one with -o host_access=ADDRESS"):
        ours.claim([Endpoint("blue", address, None, "a", "host-access.blue")], lambda _: False)
