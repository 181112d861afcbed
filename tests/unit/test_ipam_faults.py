"""What the IPAM half does when the store's answers are lost.  The store is real; only its answers are tampered with."""

import pytest

from ipam_hosts import HostUnderTest, held_in, left_in, pools_in
from spanlan.errors import Retry
from spanlan.store.base import Commit
from spanlan.store.sqlite import SqliteStore


class UnreliableStore:
    """A store that carries out commits and then, where told to, loses the answer.

    ``retry``: the answer never came.  ``lost``: it came as a failure with what others may have written since, as a
    store answers that cannot recognise its own work any more.
    """

    def __init__(self, store):
        self._store = store
        self.faults = []

    def __getattr__(self, name):
        return getattr(self._store, name)

    def commit(self, conditions, operations):
        commit = self._store.commit(conditions, operations)
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
