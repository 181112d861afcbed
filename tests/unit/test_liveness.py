"""A host's sign of life, over what may happen to its record."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from spanlan.control import liveness as liveness_module
from spanlan.control.liveness import Liveness
from spanlan.control.loop import Loop
from spanlan.control.peers import Peers
from spanlan.errors import Refuse, Retry
from spanlan.kernel.links import Links
from spanlan.metrics import Metrics
from spanlan.model.cluster import Host
from spanlan.store import codec, keys
from spanlan.store.base import Commit, Condition, Delete, Entry, Operation, Put
from spanlan.store.sqlite import SqliteStore

ME = Host("a", "1", "instance")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "cluster.db")
    yield opened
    opened.close()


def test_a_record_that_an_old_lease_takes_away_in_the_last_moment_is_written_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that was killed starts again just when the lease of its predecessor ends."""
    store.commit([], [Put(keys.host("a"), codec.encode_host(ME))])
    commit = store.commit
    ended = threading.Event()

    def lease_ends_first(conditions: Sequence[Condition], operations: Sequence[Operation]) -> Commit:
        monkeypatch.undo()
        commit([], [Delete(keys.host("a"))])
        ended.set()
        return commit(conditions, operations)

    monkeypatch.setattr(store, "commit", lease_ends_first)
    liveness = Liveness(store, ME, ttl=60)
    liveness.start()
    try:
        assert ended.wait(15)
        wait_until(lambda: store.get(keys.host("a")) is not None)
    finally:
        liveness.stop(containers_stay=False)


def test_a_record_that_could_not_be_written_at_first_is_written_later(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store granted a lease, and went away: to renew the lease alone shows nobody."""

    def goes_away(*_: object) -> Commit:
        monkeypatch.undo()
        raise Retry("no answer")

    monkeypatch.setattr(store, "commit", goes_away)
    liveness = Liveness(store, ME, ttl=60)
    liveness.start()
    try:
        wait_until(lambda: store.get(keys.host("a")) is not None)
    finally:
        liveness.stop(containers_stay=False)


def test_a_namesake_is_refused_for_as_long_as_the_other_one_is_there(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness_module, "_PAUSE", 0.01)
    store.commit([], [Put(keys.host("a"), codec.encode_host(replace(ME, instance="another")))])
    rounds: list[str] = []
    get = store.get

    def counted(key: str) -> Entry | None:
        rounds.append(key)
        return get(key)

    monkeypatch.setattr(store, "get", counted)
    liveness = Liveness(store, ME, ttl=60)
    liveness.start()
    try:
        wait_until(lambda: len(rounds) > 3)
        with pytest.raises(Refuse, match="another host of this cluster is called a"):
            liveness.refuse_namesake()
        store.commit([], [Delete(keys.host("a"))])
        wait_until(lambda: get(keys.host("a")) is not None)
        wait_until(lambda: liveness._namesake is None)
        liveness.refuse_namesake()
    finally:
        liveness.stop(containers_stay=False)


def test_who_is_missing_from_what_the_store_holds_is_told_to_show_itself(store: SqliteStore) -> None:
    """The record went while the store was away: no deletion is ever seen, and everybody else withdraws this host."""
    told: list[str] = []
    peers = Peers(store, Loop(Links(), resync=60, metrics=Metrics()), me="a", grace=1, metrics=Metrics())
    peers.on_host_deleted = told.append
    peers.start()
    try:
        wait_until(lambda: peers.lost is None)
        assert told == ["a"]
    finally:
        peers.stop()


def wait_until(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.01)
