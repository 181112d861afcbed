from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import pytest

from ipam_hosts import HostUnderTest, held_in, left_in
from spanlan.errors import Refuse
from spanlan.model.pool import AddressKind, Release
from spanlan.store.base import Put
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


# -- automatic --------------------------------------------------------------------------------------------------------


def test_an_address_comes_with_the_prefix_length_of_its_pool(h1):
    pool_id = h1.network("10.42.0.0/16", within="10.42.8.0/24")
    assert str(h1.ipam.request_address(pool_id, None, gateway=False)) == "10.42.8.0/16"
    six = h1.network("fd42::/64")
    assert str(h1.ipam.request_address(six, None, gateway=False)) == "fd42::2/64"


def test_two_hosts_take_turns_without_a_gap(h1, h2):
    one, two = h1.network("10.42.0.0/24"), h2.network("10.42.0.0/24")
    given = [host.address(pool) for _ in range(3) for host, pool in ((h1, one), (h2, two))]
    assert given == [f"10.42.0.{number}" for number in range(2, 8)]


def test_a_released_address_is_used_again_last(h1, h2):
    one, two = h1.network("10.42.0.0/28"), h2.network("10.42.0.0/28")
    first = h1.address(one)
    h1.release(one, first)
    others = [host.address(pool) for _ in range(6) for host, pool in ((h1, one), (h2, two))]
    assert others == [f"10.42.0.{number}" for number in range(3, 15)]
    assert h2.address(two) == first


def test_a_pool_gives_out_exactly_what_it_has_and_says_so_when_it_is_full(h1, h2):
    one, two = h1.network("10.42.0.0/29"), h2.network("10.42.0.0/29", aux=["10.42.0.5"])
    given = [h1.address(one), h2.address(two), h1.address(one), h2.address(two)]
    assert sorted(given) == ["10.42.0.2", "10.42.0.3", "10.42.0.4", "10.42.0.6"]
    with pytest.raises(Refuse) as refusal:
        h1.address(one)
    for part in ("all 6 of pool 10.42.0.0/29", "the cluster", "in use", "a larger --subnet"):
        assert part in str(refusal.value)
    h2.release(two, given[1])
    assert h1.address(one) == given[1]


def test_a_range_that_is_full_is_named_and_the_rest_of_the_pool_is_left_for_explicit_addresses(h1):
    pool_id = h1.network("10.42.0.0/16", within="10.42.8.0/31", segment="blue")
    assert [h1.address(pool_id) for _ in range(2)] == ["10.42.8.0", "10.42.8.1"]
    with pytest.raises(Refuse, match=r"all 2 of range 10.42.8.0/31 of pool 10.42.0.0/16 of segment blue.*--ip-range"):
        h1.address(pool_id)
    assert h1.address(pool_id, "10.42.9.1") == "10.42.9.1"


def test_two_ranges_of_one_pool_have_a_cursor_each(h1, h2):
    one = h1.network("10.42.0.0/16", within="10.42.1.0/24")
    two = h2.network("10.42.0.0/16", within="10.42.2.0/24")
    assert [h1.address(one), h2.address(two), h1.address(one)] == ["10.42.1.0", "10.42.2.0", "10.42.1.1"]


@pytest.mark.parametrize(
    ("cidr", "gateway", "rest"),
    [
        ("10.0.0.4/31", "10.0.0.4", ["10.0.0.5"]),
        ("10.0.0.4/30", "10.0.0.5", ["10.0.0.6"]),
        ("10.0.0.4/32", "10.0.0.4", []),
        ("fd00::4/127", "fd00::4", ["fd00::5"]),
        ("fd00::4/126", "fd00::5", ["fd00::6", "fd00::7"]),
        ("fd00::4/128", "fd00::4", []),
    ],
)
def test_the_smallest_pools_give_out_all_they_have(h1, cidr, gateway, rest):
    reply = h1.pool(cidr)
    assert h1.gateway(reply.pool_id) == gateway
    assert [h1.address(reply.pool_id) for _ in rest] == rest
    with pytest.raises(Refuse, match=r"no address left"):
        h1.address(reply.pool_id)


def test_a_pool_of_two_to_the_64_is_as_quick_as_any(h1):
    pool_id = h1.network("fd42::/64", gateway="fd42::ffff:ffff:ffff:ffff")
    assert [h1.address(pool_id) for _ in range(3)] == ["fd42::1", "fd42::2", "fd42::3"]


def test_one_host_asked_from_many_threads_gives_each_another_address(store, h1):
    pool_id = h1.network("10.42.0.0/24")
    with ThreadPoolExecutor(8) as threads:
        given = list(threads.map(lambda _: h1.address(pool_id), range(24)))
    assert sorted(map(ip_address, given)) == [ip_address("10.42.0.2") + number for number in range(24)]


# -- gateways and auxiliary addresses ---------------------------------------------------------------------------------


def test_every_host_gets_the_gateway_that_the_pool_has(store, h1, h2):
    h1.network("10.42.0.0/16", gateway="10.42.0.254")
    reply = h2.pool("10.42.0.0/16", within="10.42.8.0/24")
    assert h2.gateway(reply.pool_id) == "10.42.0.254"
    held = held_in(store)["cluster", "10.42.0.254"]
    assert held.kind is AddressKind.GATEWAY
    assert [holder.host for holder in held.holders] == ["h1", "h2"]


def test_without_a_name_the_gateway_is_the_pools_first_free_address_not_the_ranges(h1, h2):
    first = h1.pool("10.42.0.0/16", within="10.42.8.0/24")
    assert h1.gateway(first.pool_id) == "10.42.0.1"
    other = h2.pool("10.43.0.0/16")
    h2.address(other.pool_id, "10.43.0.1")
    assert h2.gateway(other.pool_id) == "10.43.0.2"


def test_a_gateway_and_an_auxiliary_address_named_by_several_hosts_are_one_reservation(store, h1, h2):
    one = h1.network("10.42.0.0/24", gateway="10.42.0.1", aux=["10.42.0.9", "10.42.0.2"])
    two = h2.network("10.42.0.0/24", gateway="10.42.0.2", aux=["10.42.0.9", "10.42.0.1"])
    assert {address: held.kind.value for (_, address), held in held_in(store).items()} == {
        "10.42.0.1": "gateway",
        "10.42.0.2": "gateway",
        "10.42.0.9": "auxiliary",
    }
    h1.remove(one, "10.42.0.1", "10.42.0.9", "10.42.0.2")
    assert {holder.host for held in held_in(store).values() for holder in held.holders} == {"h2"}
    assert h2.address(two) == "10.42.0.3"
    h2.remove(two, "10.42.0.3", "10.42.0.2", "10.42.0.9", "10.42.0.1")
    assert left_in(store) == []


def test_a_gateway_that_is_gone_is_not_offered_any_more(store, h1, h2):
    one, two = h1.network("10.42.0.0/24", gateway="10.42.0.200"), h2.network("10.42.0.0/24")
    h1.remove(one, "10.42.0.200")
    third = h1.pool("10.42.0.0/24").pool_id
    assert h1.gateway(third) == "10.42.0.200"
    h1.release(third, "10.42.0.200")
    h2.release(two, "10.42.0.200")
    assert h1.gateway(third) == "10.42.0.1"


def test_an_address_of_an_endpoint_is_no_gateway_and_no_auxiliary_address(h1, h2):
    pool_id = h1.network("10.42.0.0/24")
    h1.address(pool_id, "10.42.0.7")
    reply = h2.pool("10.42.0.0/24")
    with pytest.raises(Refuse, match=r"10.42.0.7 .*held by an endpoint on host h1; choose another gateway"):
        h2.gateway(reply.pool_id, "10.42.0.7")
    with pytest.raises(Refuse, match=r"10.42.0.7 .*held by an endpoint on host h1; choose another auxiliary"):
        h2.address(reply.pool_id, "10.42.0.7")


def test_an_address_named_twice_for_one_network_is_refused(h1):
    reply = h1.pool("10.42.0.0/24")
    h1.gateway(reply.pool_id, "10.42.0.1")
    assert h1.gateway(reply.pool_id, "10.42.0.1") == "10.42.0.1"
    h1.address(reply.pool_id, "10.42.0.9")
    with pytest.raises(Refuse, match=r"10.42.0.1 is named twice"):
        h1.address(reply.pool_id, "10.42.0.1")
    with pytest.raises(Refuse, match=r"10.42.0.9 is named twice"):
        h1.address(reply.pool_id, "10.42.0.9")


# -- explicit addresses, and the creation phase -----------------------------------------------------------------------


def test_an_explicit_address_goes_to_the_first_and_the_second_hears_who_has_it(h1, h2):
    one, two = h1.network("10.42.0.0/24", aux=["10.42.0.9"]), h2.network("10.42.0.0/24", segment=None)
    assert h1.address(one, "10.42.0.5") == "10.42.0.5"
    for host, pool_id in ((h2, two), (h1, one)):
        with pytest.raises(Refuse, match=r"10.42.0.5 of pool 10.42.0.0/24 .*held by an endpoint on host h1; choose"):
            host.address(pool_id, "10.42.0.5")
    with pytest.raises(Refuse, match=r"10.42.0.9 .*reserved as auxiliary address by host h1"):
        h2.address(two, "10.42.0.9")
    with pytest.raises(Refuse, match=r"10.42.0.1 .*reserved as gateway by hosts h1, h2"):
        h2.address(two, "10.42.0.1")


@pytest.mark.parametrize(
    ("cidr", "address", "message"),
    [
        ("10.42.0.0/24", "10.43.0.1", "is not in pool 10.42.0.0/24"),
        ("10.42.0.0/24", "fd00::1", "is not in pool 10.42.0.0/24"),
        ("10.42.0.0/24", "10.42.0.0", "is the network address"),
        ("10.42.0.0/24", "10.42.0.255", "is the broadcast address"),
        ("fd42::/64", "fd42::", "is the network address"),
    ],
)
def test_an_address_that_no_host_can_have_is_refused(h1, cidr, address, message):
    reply = h1.pool(cidr)
    for ask in (h1.gateway, h1.address):
        with pytest.raises(Refuse, match=message):
            ask(reply.pool_id, address)
    h1.created(reply)
    with pytest.raises(Refuse, match=message):
        h1.address(reply.pool_id, address)


def test_explicit_addresses_are_auxiliary_until_the_network_is_created(store, h1):
    reply = h1.pool("10.42.0.0/24")
    h1.address(reply.pool_id, "10.42.0.5")
    h1.created(reply)
    h1.address(reply.pool_id, "10.42.0.6")
    assert [held.kind.value for held in held_in(store).values()] == ["auxiliary", "endpoint"]


@pytest.mark.parametrize("ends", ["created in its segment", "automatic address", "time", "restart"])
def test_the_creation_phase_ends(store, h1, ends):
    reply = h1.pool("10.42.0.0/24", segment="blue")
    h1.gateway(reply.pool_id)
    if ends == "created in its segment":
        h1.created(reply, "red")
        h1.address(reply.pool_id, "10.42.0.100")
        assert held_in(store)["segment.blue", "10.42.0.100"].kind is AddressKind.AUXILIARY
        h1.created(reply, "blue")
    elif ends == "automatic address":
        h1.address(reply.pool_id)
    elif ends == "time":
        h1.clock.go(2.9)
        h1.address(reply.pool_id, "10.42.0.100")
        h1.clock.go(2.9)
        h1.address(reply.pool_id, "10.42.0.101")
        assert held_in(store)["segment.blue", "10.42.0.101"].kind is AddressKind.AUXILIARY
        h1.clock.go(3.1)
    else:
        h1 = HostUnderTest(store, "h1")
    h1.address(reply.pool_id, "10.42.0.5")
    assert held_in(store)["segment.blue", "10.42.0.5"].kind is AddressKind.ENDPOINT


def test_a_slow_store_does_not_end_the_creation_phase(store, h1):
    reply = h1.pool("10.42.0.0/24")

    class Slow:
        def __getattr__(self, name):
            return getattr(store, name)

        def commit(self, conditions, operations):
            h1.clock.go(8)
            return store.commit(conditions, operations)

    h1.ipam._addresses._store = Slow()
    h1.gateway(reply.pool_id)
    h1.address(reply.pool_id, "10.42.0.5")
    h1.address(reply.pool_id, "10.42.0.6")
    assert {held.kind.value for held in held_in(store).values()} == {"gateway", "auxiliary"}


# -- release ----------------------------------------------------------------------------------------------------------


def test_a_release_frees_only_what_this_hold_has(store, h1, h2):
    one, two = h1.network("10.42.0.0/24"), h2.network("10.42.0.0/24")
    other = h1.network("10.42.0.0/24")
    address = h1.address(one)
    for host, pool_id in ((h2, two), (h1, other)):
        host.release(pool_id, address)
        assert ("cluster", address) in held_in(store)
    h1.release(one, address)
    h1.release(one, address)
    assert ("cluster", address) not in held_in(store)


def test_a_release_that_is_repeated_frees_no_newer_claim(store, h1):
    pool_id = h1.network("10.42.0.0/24")
    address = h1.address(pool_id, "10.42.0.7")
    release = h1.ipam.prepare_release(pool_id, ip_address(address))
    h1.ipam.release(release)
    h1.address(pool_id, "10.42.0.7")
    h1.ipam.release(release)
    assert ("cluster", address) in held_in(store)
    HostUnderTest(store, "h1").ipam.release(release)
    assert ("cluster", address) in held_in(store)
    h1.release(pool_id, address)
    assert ("cluster", address) not in held_in(store)


def test_a_release_of_a_claim_from_before_a_restart_frees_it_but_not_what_came_after(store, h1):
    pool_id = h1.network("10.42.0.0/24")
    address = h1.address(pool_id, "10.42.0.7")
    again = HostUnderTest(store, "h1")
    release = again.ipam.prepare_release(pool_id, ip_address(address))
    assert release == Release(pool_id, ip_address(address), None)
    again.ipam.release(release)
    assert ("cluster", address) not in held_in(store)
    again.address(pool_id, address)
    again.ipam.release(release)
    assert ("cluster", address) in held_in(store)


def test_ids_that_spanlan_did_not_give_out_are_refused_by_each_method(h1):
    bad = "LocalDefault/10.0.0.0/8"
    address = ip_address("10.0.0.1")
    for ask in (
        lambda: h1.ipam.release_pool(bad),
        lambda: h1.ipam.release_address(bad, address),
        lambda: h1.ipam.request_address(bad, None, gateway=False),
    ):
        with pytest.raises(Refuse, match=r"LocalDefault/10.0.0.0/8"):
            ask()


def test_a_cursor_that_points_outside_the_range_is_no_hindrance(store, h1):
    pool_id = h1.network("10.42.0.0/24")
    h1.address(pool_id)
    store.commit([], [Put("/pools/cluster/10.42.0.0-24/cursor/10.42.0.0-24", b'{"last":"10.99.0.1"}')])
    assert HostUnderTest(store, "h1").address(pool_id) == "10.42.0.3"
