import pytest

from ipam_hosts import HostUnderTest, left_in, pools_in
from spanlan.errors import Refuse
from spanlan.store import keys
from spanlan.store.base import Delete
from spanlan.store.sqlite import SqliteStore


@pytest.fixture
def store(tmp_path):
    store = SqliteStore(tmp_path / "spanlan.db")
    yield store
    store.close()


@pytest.fixture
def h1(store):
    return HostUnderTest(store, "h1")


@pytest.fixture
def h2(store):
    return HostUnderTest(store, "h2")


def test_one_subnet_is_one_pool_on_all_hosts_and_goes_with_the_last(store, h1, h2):
    one, two = h1.pool("10.42.0.0/16"), h2.pool("10.42.0.0/16")
    assert one.cidr == two.cidr
    assert one.pool_id != two.pool_id
    (pool,) = pools_in(store).values()
    assert [holder.host for holder in pool.holders] == ["h1", "h2"]

    h1.ipam.release_pool(one.pool_id)
    h1.ipam.release_pool(one.pool_id)
    (pool,) = pools_in(store).values()
    assert [holder.host for holder in pool.holders] == ["h2"]

    h2.ipam.release_pool(two.pool_id)
    assert left_in(store) == []


def test_two_networks_of_one_host_hold_a_pool_twice(store, h1):
    one, two = h1.network("10.42.0.0/16"), h1.network("10.42.0.0/16")
    h1.remove(one, "10.42.0.1")
    assert h1.address(two) == "10.42.0.2"
    h1.remove(two, "10.42.0.2", "10.42.0.1")
    assert left_in(store) == []


@pytest.mark.parametrize("other", ["10.42.7.0/24", "10.0.0.0/8"])
def test_a_subnet_that_overlaps_another_pool_is_refused_with_its_name_and_the_cure(h1, h2, other):
    h1.pool("10.42.0.0/16")
    with pytest.raises(Refuse) as refusal:
        h2.pool(other)
    for part in (other, "10.42.0.0/16", "the cluster", "--ip-range", "--ipam-opt segment=NAME"):
        assert part in str(refusal.value)


def test_a_pool_is_free_for_others_once_it_is_released(h1, h2):
    h1.ipam.release_pool(h1.pool("10.42.0.0/16").pool_id)
    assert str(h2.pool("10.0.0.0/8").cidr) == "10.0.0.0/8"


def test_segments_may_use_one_subnet_each_in_its_own_space(store, h1, h2):
    blue, red = h1.network("10.42.0.0/16", segment="blue"), h2.network("10.42.0.0/16", segment="red")
    both = h1.network("10.42.0.0/16")
    assert [h1.address(blue), h2.address(red), h1.address(both)] == ["10.42.0.2"] * 3
    assert {pool.space for pool in pools_in(store).values()} == {"segment.blue", "segment.red", "cluster"}
    with pytest.raises(Refuse, match="segment blue"):
        h2.pool("10.0.0.0/8", segment="blue")


def test_an_unknown_ipam_option_is_refused_with_the_nearest_known(h1):
    with pytest.raises(Refuse, match=r"--ipam-opt: unknown option segmant: did you mean segment\?"):
        h1.pool("10.42.0.0/16", segmant="blue")
    with pytest.raises(Refuse, match="option segment=a/b: must be"):
        h1.pool("10.42.0.0/16", segment="a/b")


def test_the_family_of_a_subnet_must_be_the_one_asked_for(h1):
    with pytest.raises(Refuse, match="IPv6 pool"):
        h1.pool("10.42.0.0/16", v6=True)
    with pytest.raises(Refuse, match="IPv4 pool"):
        h1.pool("fd00::/64", v6=False)


@pytest.mark.parametrize("within", ["10.43.0.0/24", "10.0.0.0/8", "fd00::/64", "10.42.0.0/32"])
def test_a_range_has_to_hold_addresses_of_its_subnet(h1, within):
    with pytest.raises(Refuse, match=f"--ip-range {within}"):
        h1.pool("10.42.0.0/16", within=within)


def test_a_range_without_a_subnet_is_refused(h1):
    with pytest.raises(Refuse, match="--subnet"):
        h1.pool(within="10.42.0.0/24")


# -- without a subnet -------------------------------------------------------------------------------------------------


def test_a_second_host_gets_the_pool_that_the_segment_has(h1, h2):
    first = h1.pool(segment="blue")
    assert h2.pool(segment="blue").cidr == first.cidr
    assert h2.pool(segment="blue", v6=True).cidr.version == 6
    assert h1.pool(segment="red").cidr != first.cidr

    given = h1.pool("192.168.7.0/24", segment="green")
    assert h2.pool(segment="green").cidr == given.cidr


def test_default_pools_overlap_no_pool_of_any_space_and_no_network_of_the_host(store, h1):
    h2 = HostUnderTest(store, "h2", host_networks=["0.0.0.0/0", "10.201.2.0/25", "10.201.4.0/23"])
    h1.pool("10.201.0.0/24")
    h1.pool("10.201.1.128/25", segment="blue")
    assert [str(h2.pool().cidr) for _ in range(3)] == ["10.201.3.0/24", "10.201.6.0/24", "10.201.7.0/24"]
    assert [str(h2.pool(v6=True).cidr) for _ in range(2)] == ["fd00:201::/64", "fd00:201:0:1::/64"]


def test_default_pools_that_are_spent_are_refused_with_the_name_of_the_setting(store):
    host = HostUnderTest(store, default_pools="10.201.0.0/24/25")
    first = host.pool()
    host.pool(segment="blue")
    with pytest.raises(Refuse, match=r"no IPv4 pool is free in SPANLAN_DEFAULT_POOLS \(10.201.0.0/24/25\)"):
        host.pool()
    with pytest.raises(Refuse, match="no IPv6 pool is free in SPANLAN_DEFAULT_POOLS"):
        host.pool(v6=True)
    host.ipam.release_pool(first.pool_id)
    assert host.pool().cidr == first.cidr


def test_an_engine_that_asks_again_holding_what_it_got_is_told_that_the_segments_pool_does_not_suit_it(h1, h2):
    theirs = h1.network("10.42.0.0/16", segment="blue")
    offered = h2.pool(segment="blue")
    with pytest.raises(Refuse) as refusal:
        h2.pool(segment="blue")
    assert "segment blue's pool 10.42.0.0/16 overlaps a network of this host" in str(refusal.value)

    h2.ipam.release_pool(offered.pool_id)
    assert h2.pool(segment="blue").cidr == offered.cidr
    assert h1.address(theirs) == "10.42.0.2"


def test_a_pool_that_was_offered_and_used_is_given_to_the_next_network_too(h1, h2):
    h1.network("10.42.0.0/16", segment="blue")
    h2.gateway(h2.pool(segment="blue").pool_id)
    assert str(h2.pool(segment="blue").cidr) == "10.42.0.0/16"
    h2.clock.go(60)
    assert str(h2.pool(segment="blue").cidr) == "10.42.0.0/16"


def test_an_offer_that_no_address_was_taken_from_ends_with_the_networks_creation(h1, h2):
    h1.network("10.42.0.0/16", segment="blue")
    h2.created(h2.pool(segment="blue"), "blue")
    assert str(h2.pool(segment="blue").cidr) == "10.42.0.0/16"


def test_a_new_segments_pool_that_does_not_suit_is_followed_by_another_one(store, h1):
    offered = [h1.pool(segment="blue") for _ in range(3)]
    assert len({reply.cidr for reply in offered}) == 3
    for reply in offered[:2]:
        h1.ipam.release_pool(reply.pool_id)
    assert {pool.cidr for pool in pools_in(store).values()} == {offered[2].cidr}


# -- what the store lost ----------------------------------------------------------------------------------------------


def test_a_pool_that_the_store_lost_is_written_down_again_when_it_is_used(store, h1):
    pool_id = h1.network("10.42.0.0/16")
    fresh = HostUnderTest(store, "h1")
    for key in left_in(store):
        store.commit([], [Delete(key)])

    assert fresh.address(pool_id) == "10.42.0.1"
    assert list(pools_in(store)) == ["/pools/cluster/10.42.0.0-16"]
    with pytest.raises(Refuse, match="overlaps"):
        h1.pool("10.42.1.0/24")
    fresh.remove(pool_id)
    assert left_in(store) == []


def test_a_host_that_was_forgotten_by_mistake_keeps_its_addresses_when_the_others_go(store, h1, h2):
    one, two = h1.network("10.42.0.0/16"), h2.network("10.42.0.0/16")
    held = h1.address(one)
    known = pools_in(store)["/pools/cluster/10.42.0.0-16"]
    h1.ipam._pools._rewrite(
        h1.ipam._pools.read(known.space, known.cidr), type(known)(known.space, known.cidr, known.holders[1:])
    )
    h2.remove(two, "10.42.0.1")

    (pool,) = pools_in(store).values()
    assert [holder.host for holder in pool.holders] == ["h1"]
    with pytest.raises(Refuse, match="held by an endpoint on host h1"):
        h2.address(h2.network("10.42.0.0/16"), held)


def test_what_was_never_released_goes_with_the_hold_on_the_pool(store, h1, h2):
    one, two = h1.network("10.42.0.0/16", aux=["10.42.0.9"]), h2.network("10.42.0.0/16", aux=["10.42.0.9"])
    for _ in range(3):
        h1.address(one)
    kept = h2.address(two)

    HostUnderTest(store, "h1").ipam.release_pool(one)

    used = store.range(keys.POOLS).entries
    assert {holder.host for pool in pools_in(store).values() for holder in pool.holders} == {"h2"}
    assert not any(b"h1/" in entry.value for entry in used)
    h2.remove(two, kept, "10.42.0.9", "10.42.0.1")
    assert left_in(store) == []


def test_pool_ids_and_requests_survive_a_restart_of_the_daemon(store, h1):
    pool_id = h1.network("10.42.0.0/16", within="10.42.8.0/24", gateway="10.42.0.254")
    assert h1.address(pool_id) == "10.42.8.0"
    again = HostUnderTest(store, "h1")
    assert again.address(pool_id) == "10.42.8.1"
    again.remove(pool_id, "10.42.8.0", "10.42.8.1", "10.42.0.254")
    assert left_in(store) == []


def test_a_pool_is_automatic_while_the_network_for_which_it_was_chosen_is_created(h1):
    chosen, named = h1.pool(), h1.pool("10.200.0.0/24")
    assert h1.ipam.is_automatic(chosen.cidr)
    assert not h1.ipam.is_automatic(named.cidr)
    h1.created(chosen)
    assert not h1.ipam.is_automatic(chosen.cidr)
