"""The address that a host gets for itself on a segment: from a pool of spanlan's IPAM, or beside Docker's own."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from ipam_hosts import HostUnderTest
from spanlan.control.host_access import HostAccess, endpoint_id, is_host
from spanlan.control.ipam.pool_id import PoolId
from spanlan.control.segments import Segments
from spanlan.errors import Refuse
from spanlan.model.cluster import Endpoint, Segment
from spanlan.model.request import NetworkPool
from spanlan.store.sqlite import SqliteStore

SEGMENT = Segment("lan", "macvlan")
FOUR, SIX = "192.168.10.0/24", "2001:db8:10::/64"


class Host:
    """One host that wants a place on the segment, and what it has been given."""

    def __init__(self, store: SqliteStore, name: str = "a") -> None:
        self.engine = HostUnderTest(store, name=name)
        self.segments = Segments(store, name)
        self.name = name
        self.holds: list[str] = []
        self._access = HostAccess(me=name, ipam=self.engine.ipam, segments=self.segments)

    def hold(self, *pools: NetworkPool, asked: str = "") -> list[str]:
        named = [ip_address(text) for text in asked.split(",") if text]
        return [str(address) for address in self._access.hold(SEGMENT, pools, named, self.holds)]

    def enter(self, *addresses: str) -> None:
        """What follows: the addresses are claimed on the segment."""
        claimed = [Endpoint("lan", ip_address(text), None, self.name, endpoint_id("lan")) for text in addresses]
        self.segments.claim(claimed, lambda _: False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "store.db")
    yield opened
    opened.close()


@pytest.fixture
def host(store: SqliteStore) -> Host:
    return Host(store)


def pool(cidr: str = FOUR, gateway: str | None = None, **auxiliary: str) -> NetworkPool:
    aux = {name: ip_address(text) for name, text in auxiliary.items()}
    return NetworkPool(ip_network(cidr), None if gateway is None else ip_address(gateway), aux)


class TestWithSpanlansPools:
    def test_an_address_is_taken_that_no_container_gets(self, host: Host) -> None:
        pool_id = host.engine.pool(FOUR).pool_id
        gateway = host.engine.gateway(pool_id)
        (address,) = host.hold(pool(gateway=gateway))
        host.engine.ipam.network_created([pool()], "lan")
        given = {host.engine.address(pool_id) for _ in range(252)}
        assert len(given | {address, gateway}) == 254
        with pytest.raises(Refuse):
            host.engine.address(pool_id)

    def test_it_lies_in_the_range_of_the_network_that_is_being_created(self, host: Host) -> None:
        host.engine.pool(FOUR, within="192.168.10.192/26")
        (address,) = host.hold(pool())
        assert ip_address(address) in ip_network("192.168.10.192/26")

    def test_the_range_of_a_network_that_was_created_before_is_not_taken_for_this_ones(self, host: Host) -> None:
        host.engine.network(FOUR, within="192.168.10.192/26")
        (address,) = host.hold(pool())
        assert address == "192.168.10.2"  # after the gateway, from the whole of the pool

    def test_it_comes_back_with_its_hold_and_the_pool_goes_with_the_last(self, host: Host, store: SqliteStore) -> None:
        pool_id = host.engine.pool(FOUR).pool_id
        host.hold(pool())
        host.engine.ipam.release_pool(pool_id)
        assert store.range("/pools/").entries
        (hold,) = host.holds
        host.engine.ipam.release_pool(hold)
        assert store.range("/pools/").entries == ()

    def test_every_host_gets_its_own(self, store: SqliteStore) -> None:
        given = []
        for number in range(5):
            host = Host(store, f"h{number}")
            host.engine.network(FOUR)
            given += host.hold(pool())
        assert len(set(given)) == 5

    def test_one_that_was_asked_for_is_held(self, store: SqliteStore, host: Host) -> None:
        host.engine.pool(FOUR)
        assert host.hold(pool(), asked="192.168.10.77") == ["192.168.10.77"]
        assert len(host.holds) == 1
        with pytest.raises(Refuse, match=r"192\.168\.10\.77"):
            Host(store, "b").hold(pool(), asked="192.168.10.77")

    def test_an_auxiliary_address_is_kept_for_the_host_already(self, host: Host) -> None:
        pool_id = host.engine.pool(FOUR).pool_id
        host.engine.address(pool_id, "192.168.10.7")
        assert host.hold(pool(router="192.168.10.7"), asked="192.168.10.7") == ["192.168.10.7"]
        assert host.holds == []

    def test_the_gateway_is_refused(self, host: Host) -> None:
        with pytest.raises(Refuse) as caught:
            host.hold(pool(gateway="192.168.10.1"), asked="192.168.10.1")
        assert str(caught.value) == (
            "option host_access=192.168.10.1: it is the gateway of the network; give another address"
        )

    def test_each_family_gets_one_from_its_first_subnet(self, host: Host) -> None:
        other = "192.168.20.0/24"
        for cidr in (FOUR, other, SIX):
            host.engine.pool(cidr)
        four, six = host.hold(pool(), pool(other), pool(SIX))
        assert ip_address(four) in ip_network(FOUR)
        assert ip_address(six) in ip_network(SIX)
        assert len(host.holds) == 2

    def test_of_the_families_only_those_that_were_asked_for(self, host: Host) -> None:
        assert host.hold(pool(), pool(SIX), asked="2001:db8:10::7") == ["2001:db8:10::7"]
        assert host.hold(pool(), pool(SIX), asked="192.168.10.7") == ["192.168.10.7"]
        asked = "2001:db8:10::7,192.168.10.7"
        assert host.hold(pool(), pool(SIX), asked=asked) == ["192.168.10.7", "2001:db8:10::7"]

    def test_one_of_the_second_subnet_may_be_asked_for(self, host: Host) -> None:
        assert host.hold(pool(), pool("192.168.20.0/24"), asked="192.168.20.7") == ["192.168.20.7"]

    def test_one_outside_of_all_subnets_is_refused(self, host: Host) -> None:
        with pytest.raises(Refuse) as caught:
            host.hold(pool(), asked="192.168.11.7")
        assert str(caught.value) == (
            "option host_access=192.168.11.7: it lies in no subnet of the network; name one that does"
        )

    @pytest.mark.parametrize("pools", [(), (pool("0.0.0.0/0"),)])
    def test_a_network_without_subnet_has_no_place(self, host: Host, pools: tuple[NetworkPool, ...]) -> None:
        with pytest.raises(Refuse, match="the network has no subnet that the host could have an address of"):
            host.hold(*pools)

    def test_who_fails_in_the_middle_knows_what_to_give_back(self, host: Host, store: SqliteStore) -> None:
        four, six = host.engine.pool("192.168.10.0/30").pool_id, host.engine.pool("2001:db8:10::/127").pool_id
        for pool_id in (six, six):
            host.engine.ipam.request_address(pool_id, None, gateway=False)
        with pytest.raises(Refuse):
            host.hold(pool("192.168.10.0/30"), pool("2001:db8:10::/127"))
        assert [str(PoolId.parse(hold).cidr) for hold in host.holds] == ["192.168.10.0/30", "2001:db8:10::/127"]
        for hold in (*host.holds, four, six):
            host.engine.ipam.release_pool(hold)
        assert store.range("/pools/").entries == ()

    def test_a_pool_in_the_segments_own_space_comes_first(self, host: Host) -> None:
        Host(host.engine.ipam._pools._store, "b").engine.network(FOUR)
        host.engine.pool(FOUR, segment="lan")
        host.hold(pool())
        (hold,) = host.holds
        assert PoolId.parse(hold).space == PoolId.parse(host.engine.pool(FOUR, segment="lan").pool_id).space


class TestWithDockersOwn:
    def test_it_comes_from_the_end_of_the_subnet(self, host: Host) -> None:
        assert host.hold(pool()) == ["192.168.10.254"]
        assert host.hold(pool(SIX)) == ["2001:db8:10:0:ffff:ffff:ffff:ffff"]
        assert host.holds == []

    def test_not_the_gateway_nor_an_auxiliary_one_nor_one_that_is_in_use(self, host: Host, store: SqliteStore) -> None:
        Host(store, "b").enter("192.168.10.252")
        assert host.hold(pool(gateway="192.168.10.254", router="192.168.10.253")) == ["192.168.10.251"]

    def test_one_that_a_crash_left_to_this_host_is_taken_up_again(self, host: Host) -> None:
        host.enter("192.168.10.254")
        assert host.hold(pool()) == ["192.168.10.254"]

    def test_one_of_a_container_of_this_host_is_in_use(self, host: Host) -> None:
        container = Endpoint("lan", ip_address("192.168.10.254"), None, "a", "e1")
        host.segments.claim([container], lambda _: False)
        assert host.hold(pool()) == ["192.168.10.253"]

    @pytest.mark.parametrize(
        ("cidr", "gateway", "address"),
        [
            ("192.168.10.6/31", "192.168.10.6", "192.168.10.7"),
            ("192.168.10.6/31", "192.168.10.7", "192.168.10.6"),
            ("192.168.10.4/30", "192.168.10.6", "192.168.10.5"),
            ("2001:db8:10::6/127", "2001:db8:10::7", "2001:db8:10::6"),
        ],
    )
    def test_small_subnets_are_used_to_their_ends(self, host: Host, cidr: str, gateway: str, address: str) -> None:
        assert host.hold(pool(cidr, gateway=gateway)) == [address]

    def test_a_subnet_without_a_free_one_is_refused_with_the_cure(self, host: Host, store: SqliteStore) -> None:
        Host(store, "b").enter("192.168.10.5")
        with pytest.raises(Refuse, match="name a free one with -o host_access=ADDRESS"):
            host.hold(pool("192.168.10.4/30", gateway="192.168.10.6"))
        Host(store, "c").enter(*(f"192.168.10.{number}" for number in range(200, 255)))
        with pytest.raises(Refuse, match=r"the last 32 addresses of 192\.168\.10\.0/24 are taken"):
            host.hold(pool())

    def test_one_that_was_asked_for_is_taken_as_it_is(self, host: Host) -> None:
        assert host.hold(pool(), asked="192.168.10.77") == ["192.168.10.77"]


def test_the_hosts_own_endpoint_is_told_from_those_of_containers() -> None:
    assert is_host(endpoint_id("lan"))
    assert not is_host("f" * 64)
