"""Many hosts that hand out addresses of one store in parallel, over each kind of store."""

import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from ipaddress import ip_network
from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipam_hosts import HostUnderTest, held_in, left_in, pools_in
from spanlan.errors import Refuse
from spanlan.model.address import overlaps
from spanlan.model.pool import AddressKind
from spanlan.store.base import Delete
from spanlan.store.etcd import EtcdStore
from spanlan.store.sqlite import SqliteStore

MANY = 6


@pytest.fixture(params=["sqlite", "etcd"])
def stores(request, tmp_path):
    """A client of one store for each of many hosts."""
    if request.param == "sqlite":
        clients = [SqliteStore(tmp_path / "spanlan.db") for _ in range(MANY)]
    else:
        endpoint = request.getfixturevalue("etcd").endpoint
        root = f"/ipam-{uuid.uuid4().hex}"
        clients = [EtcdStore([endpoint], root=root) for _ in range(MANY)]
    yield clients
    for client in clients:
        client.close()


@pytest.fixture
def hosts(stores):
    return [HostUnderTest(store, f"h{number}") for number, store in enumerate(stores, start=1)]


def at_once(*works):
    """Run functions in threads that start together; their results, or the Refuse that they raised."""
    start = threading.Barrier(len(works))

    def run(work):
        start.wait(10)
        try:
            return work()
        except Refuse as refusal:
            return refusal

    with ThreadPoolExecutor(len(works)) as threads:
        return list(threads.map(run, works))


class Witness:
    """Sees every address that an endpoint has, as its container would: from the answer until before the release."""

    def __init__(self):
        self._lock = threading.Lock()
        self.seen = {}
        self.twice = []

    def granted(self, address, host):
        with self._lock:
            if address in self.seen:
                self.twice.append((address, self.seen[address], host))
            self.seen[address] = host

    def given_back(self, address):
        with self._lock:
            del self.seen[address]


class Life:
    """One host's part: a network, then containers that come and go."""

    def __init__(self, host, cidr, acts, witness):
        self.host, self.acts, self.witness = host, acts, witness
        self.pool_id = host.network(cidr, aux=["10.42.0.5"])
        self.containers = []

    def live(self):
        for act, number in self.acts:
            if act == "release":
                self.release(number)
                continue
            with suppress(Refuse):
                self.containers.append(self.host.address(self.pool_id, f"10.42.0.{number}" if act == "ip" else None))
                self.witness.granted(self.containers[-1], self.host.name)

    def release(self, number):
        if self.containers:
            address = self.containers.pop(number % len(self.containers))
            self.witness.given_back(address)
            self.host.release(self.pool_id, address)

    def end(self):
        while self.containers:
            self.release(0)
        self.host.remove(self.pool_id, "10.42.0.1", "10.42.0.5")


acts = st.lists(
    st.tuples(st.sampled_from(["run", "run", "run", "ip", "release"]), st.integers(0, 15)), min_size=1, max_size=12
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lives=st.lists(acts, min_size=2, max_size=MANY))
def test_no_two_hosts_ever_hold_one_address_and_nothing_leaks(stores, lives):
    store, witness = stores[0], Witness()
    hosts = [HostUnderTest(client, f"h{number}") for number, client in enumerate(stores, start=1)]
    living = [Life(host, "10.42.0.0/28", acts, witness) for host, acts in zip(hosts, lives, strict=False)]
    with emptied(store):
        at_once(*(life.live for life in living))

        assert witness.twice == []
        held = {address: one for (_, address), one in held_in(store).items() if one.kind is AddressKind.ENDPOINT}
        assert {address: one.holders[0].host for address, one in held.items()} == witness.seen
        assert {"10.42.0.0", "10.42.0.1", "10.42.0.5", "10.42.0.15"}.isdisjoint(witness.seen)

        # What is left is given out to the last, and then no more.
        left = 12 - len(witness.seen)
        rest = [living[number % len(living)] for number in range(left)]
        for life in rest:
            life.containers.append(life.host.address(life.pool_id))
            witness.granted(life.containers[-1], life.host.name)
        assert witness.twice == []
        for life in living:
            with pytest.raises(Refuse, match="all 14 of pool"):
                life.host.address(life.pool_id)

        at_once(*(life.end for life in living))
        assert left_in(store) == []


@contextmanager
def emptied(store):
    """Leave nothing for the next example, also when this one fails."""
    try:
        yield
    finally:
        for key in left_in(store):
            store.commit([], [Delete(key)])


def test_forty_containers_started_at_once_on_ten_hosts_get_forty_addresses(stores, hosts):
    # More hosts than clients, each with a pool id of its own.
    hosts += [HostUnderTest(store, f"i{number}") for number, store in enumerate(stores[:4], start=1)]
    pools = [host.network("10.42.0.0/24") for host in hosts]

    given = at_once(*(partial(host.address, pool) for host, pool in zip(hosts, pools, strict=True) for _ in range(4)))

    assert len(set(given)) == 40


def test_an_address_that_all_ask_for_at_once_goes_to_one_and_the_others_hear_to_whom(hosts):
    pools = [host.network("10.42.0.0/24") for host in hosts]

    answers = at_once(*(partial(host.address, pool, "10.42.0.9") for host, pool in zip(hosts, pools, strict=True)))

    (winner,) = [host.name for host, answer in zip(hosts, answers, strict=True) if answer == "10.42.0.9"]
    refusals = [str(answer) for answer in answers if isinstance(answer, Refuse)]
    assert len(refusals) == MANY - 1
    assert all(f"held by an endpoint on host {winner};" in text for text in refusals)


def test_hosts_that_create_one_network_at_once_share_pool_and_gateway(stores, hosts):
    pools = at_once(*(partial(host.network, "10.42.0.0/24", aux=["10.42.0.5"]) for host in hosts))

    (pool,) = pools_in(stores[0]).values()
    assert len(pool.holders) == MANY
    assert {address: len(one.holders) for (_, address), one in held_in(stores[0]).items()} == {
        "10.42.0.1": MANY,
        "10.42.0.5": MANY,
    }
    at_once(*(partial(host.remove, pool, "10.42.0.1", "10.42.0.5") for host, pool in zip(hosts, pools, strict=True)))
    assert left_in(stores[0]) == []


@pytest.mark.parametrize(
    "cidrs",
    [
        ["10.0.0.0/16", "10.0.1.0/24"] * 3,
        ["10.0.0.0/16", "10.0.1.0/24", "10.0.0.0/8", "10.0.1.128/25", "10.0.0.0/15", "10.0.1.0/25"],
        ["10.0.1.0/25", "10.0.1.0/24", "10.0.1.128/25", "10.0.0.0/16", "fd00::/48", "fd00::/64"],
    ],
)
def test_of_pools_that_overlap_and_are_created_at_once_only_those_come_to_be_that_fit(stores, hosts, cidrs):
    answers = at_once(*(partial(host.pool, cidr) for host, cidr in zip(hosts, cidrs, strict=True)))

    made = [pool.cidr for pool in pools_in(stores[0]).values()]
    assert not any(overlaps(one, other) for one, other in combinations(made, 2))
    for cidr, answer in zip(map(ip_network, cidrs), answers, strict=True):
        if isinstance(answer, Refuse):
            assert any(overlaps(cidr, other) for other in made if other != cidr)
        else:
            assert cidr in made


def test_default_pools_handed_out_at_once_never_overlap(stores, hosts):
    replies = at_once(*(partial(host.pool, segment=segment) for host in hosts for segment in (None, host.name)))
    cidrs = [reply.cidr for reply in replies]
    assert not any(one.overlaps(other) for one, other in combinations(cidrs, 2))
    assert len(pools_in(stores[0])) == 2 * MANY


def test_hosts_that_ask_for_a_segments_pool_at_once_agree_on_one(hosts):
    replies = at_once(*(partial(host.pool, segment="blue") for host in hosts))
    assert Counter(reply.cidr for reply in replies).most_common() == [(replies[0].cidr, MANY)]


def test_a_pool_that_one_host_leaves_while_another_comes_is_never_half_there(stores, hosts):
    for _ in range(10):
        leaving = hosts[0].network("10.42.0.0/24")
        _, coming = at_once(partial(hosts[0].remove, leaving, "10.42.0.1"), partial(hosts[1].network, "10.42.0.0/24"))
        (pool,) = pools_in(stores[0]).values()
        assert [holder.host for holder in pool.holders] == ["h2"]
        assert [str(pool.gateway), *(address for _, address in held_in(stores[0]))] == ["10.42.0.1"] * 2
        hosts[1].remove(coming, "10.42.0.1")
        assert left_in(stores[0]) == []
