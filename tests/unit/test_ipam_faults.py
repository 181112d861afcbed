"""What the IPAM half does when the store's answers are lost, and when others write between its reads and its commits.

The store is real; only the moments and the answers are tampered with.
"""

import time

import pytest

from ipam_hosts import HostUnderTest, held_in, left_in, pools_in
from spanlan import deadline
from spanlan.errors import Refuse, Retry
from spanlan.store.base import Commit
from spanlan.store.sqlite import SqliteStore


class UnreliableStore:
    """A store that carries out commits and then, where told to, loses the answer.

    ``meanwhile``: what happens between the reads that a commit is based on and the commit itself; ``slow``: what
    happens between the commit and its answer.  ``faults``:
    "retry", the answer never came; "lost", it came as a failure with what others may have written since, as a store
    answers that cannot recognise its own work any more.
    """

    def __init__(self, store):
        self._store = store
        self.faults = []
        self.meanwhile = []
        self.slow = []

    def __getattr__(self, name):
        return getattr(self._store, name)

    def commit(self, conditions, operations):
        if self.meanwhile:
            self.meanwhile.pop(0)()
        commit = self._store.commit(conditions, operations)
        if self.slow:
            self.slow.pop(0)()
        fault = self.faults.pop(0) if self.faults else None
        if fault == "retry":
            raise Retry("the store went away")
        if fault == "lost" and commit.succeeded:
            keys = [condition.key for condition in conditions]
            return Commit(succeeded=False, revision=commit.revision, current={key: self.get(key) for key in keys})
        return commit


@pytest.fixture
def store(tmp_path):
    store = SqliteStore(tmp_path / "spanlan.db")
    yield UnreliableStore(store)
    store.close()


@pytest.fixture
def h1(store):
    return HostUnderTest(store, "h1")


def wait_for_the_deadline():
    ends_at = time.monotonic() + 5
    while time.monotonic() < ends_at:
        try:
            time.sleep(deadline.remaining(0.05))
        except Retry:
            return


REQUESTS = {
    "pool": lambda host, pool_id: host.pool("10.43.0.0/24"),
    "pool of a segment": lambda host, pool_id: host.pool(segment="blue"),
    "default pool": lambda host, pool_id: host.pool(),
    "gateway": lambda host, pool_id: host.gateway(pool_id),
    "explicit gateway": lambda host, pool_id: host.gateway(pool_id, "10.42.0.7"),
    "auxiliary": lambda host, pool_id: host.address(host.pool("10.42.0.0/24").pool_id, "10.42.0.9"),
    "explicit": lambda host, pool_id: host.address(pool_id, "10.42.0.5"),
    "automatic": lambda host, pool_id: host.address(pool_id),
}


@pytest.fixture
def pool_id(store, h1):
    """A pool that another host has a part in, too."""
    h2 = HostUnderTest(store, "h2")
    h2.network("10.42.0.0/24", gateway="10.42.0.7", aux=["10.42.0.9"])
    h2.network("10.44.0.0/24", segment="blue")
    reply = h1.pool("10.42.0.0/24")
    h1.clock.go(10)
    return reply.pool_id


@pytest.mark.parametrize("request_name", REQUESTS)
def test_a_claim_whose_outcome_is_unknown_is_handed_over_to_be_undone(store, h1, pool_id, request_name):
    before = [(entry.key, entry.value) for entry in store.range("/").entries if "/cursor/" not in entry.key]
    # Reaching a pool may take a commit of its own: fail the last one of the request.
    store.faults = [None, "retry"] if request_name == "auxiliary" else ["retry"]
    with pytest.raises(Retry):
        REQUESTS[request_name](h1, pool_id)

    assert h1.unsettled
    for release in h1.unsettled:
        h1.ipam.release(release)
        h1.ipam.release(release)
    if request_name == "auxiliary":
        (left_pool,) = (pool for pool in pools_in(store).values() if str(pool.cidr) == "10.42.0.0/24")
        h1.ipam.release_pool(f"cluster|10.42.0.0/24|-|{left_pool.holders[-1].nonce}")
    after = [(entry.key, entry.value) for entry in store.range("/").entries if "/cursor/" not in entry.key]
    assert after == before


@pytest.mark.parametrize("request_name", REQUESTS)
def test_a_claim_that_came_after_its_deadline_is_handed_over_to_be_undone(store, h1, pool_id, request_name):
    ask = REQUESTS[request_name]
    if request_name == "auxiliary":
        own = h1.pool("10.42.0.0/24").pool_id
        ask = lambda host, pool_id: host.address(own, "10.42.0.9")  # noqa: E731
    before = [(entry.key, entry.value) for entry in store.range("/").entries if "/cursor/" not in entry.key]
    store.slow = [wait_for_the_deadline]
    with deadline.within(0.3), pytest.raises(Retry):
        ask(h1, pool_id)

    for release in h1.unsettled:
        h1.ipam.release(release)
    after = [(entry.key, entry.value) for entry in store.range("/").entries if "/cursor/" not in entry.key]
    assert h1.unsettled
    assert after == before


@pytest.mark.parametrize("request_name", REQUESTS)
def test_a_claim_that_the_store_cannot_recognise_as_ours_is_made_only_once(store, h1, pool_id, request_name):
    store.faults = ["lost"] * 2
    REQUESTS[request_name](h1, pool_id)
    assert h1.unsettled == []

    mine = [holder for pool in pools_in(store).values() for holder in pool.holders if holder.host == "h1"]
    assert len(mine) == (1 if request_name in {"gateway", "explicit gateway", "explicit", "automatic"} else 2)
    held = [one for one in held_in(store).values() if any(holder.host == "h1" for holder in one.holders)]
    assert len(held) == (0 if "pool" in request_name else 1)


def test_a_release_whose_answer_was_lost_may_be_repeated(store, h1):
    pool_id = h1.network("10.42.0.0/24", gateway="10.42.0.7")
    address = h1.address(pool_id)
    for release in (
        lambda: h1.release(pool_id, address),
        lambda: h1.release(pool_id, "10.42.0.7"),
        lambda: h1.ipam.release_pool(pool_id),
    ):
        store.faults = ["retry"]
        with pytest.raises(Retry):
            release()
        release()
    assert left_in(store) == []
    assert h1.unsettled == []


def test_a_pool_that_another_host_joins_in_the_moment_of_its_removal_stays(store, h1):
    pool_id, h2 = h1.network("10.42.0.0/24"), HostUnderTest(store, "h2")
    h1.release(pool_id, "10.42.0.1")
    joined = []
    store.meanwhile = [lambda: joined.append(h2.network("10.42.0.0/24"))]

    h1.ipam.release_pool(pool_id)

    (pool,) = pools_in(store).values()
    assert [holder.host for holder in pool.holders] == ["h2"]
    assert h2.address(joined[0]) == "10.42.0.2"


@pytest.mark.parametrize("address", [None, "10.42.0.9"])
def test_no_address_is_claimed_in_a_pool_that_is_gone(store, h1, address):
    pool_id = h1.network("10.42.0.0/24")
    store.meanwhile = [lambda: HostUnderTest(store, "h1").ipam.release_pool(pool_id)]

    h1.address(pool_id, address)

    (pool,) = pools_in(store).values()
    assert [str(holder.host) for holder in pool.holders] == ["h1"]
    h1.ipam.release_pool(pool_id)
    assert left_in(store) == []


def test_a_host_that_is_overtaken_takes_the_next_address(store, h1):
    pool_id, h2 = h1.network("10.42.0.0/24"), HostUnderTest(store, "h2")
    other = h2.network("10.42.0.0/24")
    store.meanwhile = [lambda: h2.address(other)]
    assert h1.address(pool_id) == "10.42.0.3"


def test_a_host_that_is_overtaken_again_and_again_gets_an_address_in_the_end(store, h1):
    pool_id, h2 = h1.network("10.42.0.0/24"), HostUnderTest(store, "h2")
    other, theirs = h2.network("10.42.0.0/24"), []

    def overtake():
        store.meanwhile.insert(0, lambda: None)  # for the commit of h2 itself
        theirs.append(h2.address(other))

    store.meanwhile = [overtake] * 6
    mine = h1.address(pool_id)
    assert len(theirs) > 1
    assert mine not in theirs


def test_two_pools_that_overlap_cannot_be_created_in_one_moment(store, h1):
    h2 = HostUnderTest(store, "h2")
    store.meanwhile = [lambda: h2.pool("10.42.7.0/24")]
    with pytest.raises(Refuse, match=r"overlaps 10.42.7.0/24"):
        h1.pool("10.42.0.0/16")
    assert list(pools_in(store)) == ["/pools/cluster/10.42.7.0-24"]


def test_a_gateway_named_by_another_host_in_the_same_moment_is_taken_over(store, h1):
    h2, reply = HostUnderTest(store, "h2"), h1.pool("10.42.0.0/24")
    store.meanwhile = [lambda: h2.network("10.42.0.0/24", gateway="10.42.0.77")]
    assert h1.gateway(reply.pool_id) == "10.42.0.77"


def test_two_hosts_that_reserve_and_release_one_address_in_the_same_moment_lose_nothing(store, h1):
    h2 = HostUnderTest(store, "h2")
    one, two = h1.network("10.42.0.0/24", aux=["10.42.0.9"]), h2.pool("10.42.0.0/24").pool_id
    store.meanwhile = [lambda: h2.address(two, "10.42.0.9")]
    h1.release(one, "10.42.0.9")
    (holder,) = held_in(store)["cluster", "10.42.0.9"].holders
    assert holder.host == "h2"

    three = h1.pool("10.42.0.0/24").pool_id
    store.meanwhile = [lambda: h2.release(two, "10.42.0.9")]
    h1.address(three, "10.42.0.9")
    (holder,) = held_in(store)["cluster", "10.42.0.9"].holders
    assert holder.host == "h1"
