"""The contract of a store, held against every implementation.

``store`` and ``second`` are two clients of one store: two hosts, as far as the store can tell.
"""

import json
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spanlan import deadline
from spanlan.errors import Broken, Gone, Retry
from spanlan.store.base import (
    Absent,
    Changes,
    Delete,
    DeletePrefix,
    Entry,
    InSync,
    Put,
    Snapshot,
    Store,
    Unchanged,
)
from spanlan.store.locate import Credentials, open_store
from store.etcd_server import EtcdServer, wait_until
from store.listener import Listener

TTL = 2.0
SOON = 5.0


@pytest.fixture(params=["sqlite", "etcd"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store."""
    if request.param == "sqlite":
        return f"sqlite://{tmp_path / 'spanlan.db'}"
    server: EtcdServer = request.getfixturevalue("etcd")
    return f"etcd://{server.endpoint}/contract-{uuid.uuid4().hex}"


@pytest.fixture
def client(url: str) -> Iterator[Callable[[], Store]]:
    """Makes clients of the store, and closes them."""
    clients = []

    def make() -> Store:
        clients.append(open_store(url, credentials=Credentials()))
        return clients[-1]

    yield make
    for each in clients:
        each.close()


@pytest.fixture
def store(client: Callable[[], Store]) -> Store:
    return client()


@pytest.fixture
def second(client: Callable[[], Store]) -> Store:
    return client()


def put(store: Store, key: str, value: bytes = b"") -> int:
    """Write a key whatever it holds; the revision."""
    return store.commit([], [Put(key, value)]).revision


def keys_of(snapshot: Snapshot) -> list[str]:
    return [entry.key for entry in snapshot.entries]


# -- reading ------------------------------------------------------------------------------------------------------


def test_a_key_that_nobody_wrote_is_none(store: Store) -> None:
    assert store.get("/a") is None


def test_an_entry_carries_its_value_and_the_revision_that_wrote_it(store: Store, second: Store) -> None:
    revision = put(store, "/a", b"one")
    put(store, "/b", b"other")
    assert store.get("/a") == second.get("/a") == Entry("/a", b"one", revision)


@pytest.mark.parametrize("value", [b"", b"\0\xff\n", bytes(range(256)), "é".encode()], ids=repr)
def test_a_value_comes_back_byte_for_byte(store: Store, second: Store, value: bytes) -> None:
    put(store, "/a", value)
    found = second.get("/a")
    assert found is not None
    assert found.value == value
    assert type(found.value) is bytes


def test_a_value_of_a_megabyte_is_kept(store: Store, second: Store) -> None:
    value = os.urandom(1 << 20)
    put(store, "/big", value)
    assert [entry.value for entry in second.range("/").entries] == [value]


def test_a_range_is_what_starts_with_the_prefix_in_the_order_of_the_keys(store: Store) -> None:
    names = ["/s/", "/s/a", "/s/a/b", "/s/a0", "/s/b", "/s/\x7f", "/s/é", "/s/\uffff", "/s/\U0001f600"]
    others = ["/", "/s", "/r/z", "/s.", "/s0", "/t", "/ß"]
    for name in random.sample(names + others, len(names + others)):
        put(store, name)
    assert keys_of(store.range("/s/")) == names
    assert keys_of(store.range("/s/a")) == ["/s/a", "/s/a/b", "/s/a0"]
    assert keys_of(store.range("/s/é")) == ["/s/é"]
    assert keys_of(store.range("/nothing/")) == []
    assert keys_of(store.range("/")) == sorted(names + others, key=str.encode)


def test_a_prefix_may_end_in_any_character(store: Store) -> None:
    for last in ("\x7f", "\ud7ff", "\uffff", "\U0010ffff"):
        put(store, f"/p{last}x")
        put(store, f"/p{last}")
        assert keys_of(store.range(f"/p{last}")) == [f"/p{last}", f"/p{last}x"]


def test_start_and_limit_cut_a_range(store: Store) -> None:
    for number in range(10):
        put(store, f"/n/{number}")
    put(store, "/o")
    assert keys_of(store.range("/n/", start="/n/7")) == ["/n/7", "/n/8", "/n/9"]
    assert keys_of(store.range("/n/", start="/n/7x")) == ["/n/8", "/n/9"]
    assert keys_of(store.range("/n/", limit=2)) == ["/n/0", "/n/1"]
    assert keys_of(store.range("/n/", start="/n/4", limit=3)) == ["/n/4", "/n/5", "/n/6"]
    assert keys_of(store.range("/n/", start="/a")) == [f"/n/{number}" for number in range(10)]
    assert keys_of(store.range("/n/", start="/o")) == []
    assert len(store.range("/n/", limit=100).entries) == 10


def test_thousands_of_keys_are_read_at_one_revision(store: Store, second: Store) -> None:
    for hundred in range(50):
        revision = store.commit([], [Put(f"/k/{hundred:02}{n:02}", b"v" * 200) for n in range(100)]).revision
    found = second.range("/k/")
    assert keys_of(found) == [f"/k/{n:04}" for n in range(5000)]
    assert found.revision == revision


def test_the_revision_of_a_range_is_that_of_the_whole_store(store: Store) -> None:
    put(store, "/a")
    revision = put(store, "/b")
    assert store.range("/a").revision == revision


# -- commits ------------------------------------------------------------------------------------------------------


def test_a_key_claimed_twice_goes_to_the_first_and_the_second_learns_who(store: Store, second: Store) -> None:
    first = store.commit([Absent("/a")], [Put("/a", b"first")])
    assert first.succeeded
    late = second.commit([Absent("/a")], [Put("/a", b"second")])
    assert not late.succeeded
    assert late.current == {"/a": Entry("/a", b"first", first.revision)}
    assert store.get("/a") == Entry("/a", b"first", first.revision)


def test_a_change_on_the_grounds_of_an_old_revision_fails(store: Store, second: Store) -> None:
    old = put(store, "/a", b"1")
    changed = second.commit([Unchanged("/a", old)], [Put("/a", b"2")])
    assert changed.succeeded
    late = store.commit([Unchanged("/a", old)], [Put("/a", b"3")])
    assert not late.succeeded
    assert late.current == {"/a": Entry("/a", b"2", changed.revision)}


def test_writing_the_same_value_again_is_a_change_too(store: Store) -> None:
    old = put(store, "/a", b"same")
    put(store, "/a", b"same")
    assert not store.commit([Unchanged("/a", old)], [Delete("/a")]).succeeded


def test_a_key_that_was_removed_and_made_again_is_not_unchanged(store: Store) -> None:
    old = put(store, "/a")
    store.commit([], [Delete("/a")])
    assert not store.commit([Unchanged("/a", old)], [Put("/b", b"")]).succeeded
    put(store, "/a")
    assert not store.commit([Unchanged("/a", old)], [Put("/b", b"")]).succeeded
    assert store.get("/b") is None


def test_nothing_is_written_unless_all_conditions_hold(store: Store) -> None:
    revision = put(store, "/a", b"1")
    put(store, "/x/1")
    conditions = [Absent("/new"), Unchanged("/a", revision), Absent("/x/1")]
    failed = store.commit(conditions, [Put("/new", b""), Delete("/a"), DeletePrefix("/x/")])
    assert not failed.succeeded
    assert {key: entry and entry.value for key, entry in failed.current.items()} == {
        "/new": None,
        "/a": b"1",
        "/x/1": b"",
    }
    assert keys_of(store.range("/")) == ["/a", "/x/1"]
    assert failed.revision == store.range("/").revision


def test_all_operations_of_a_commit_share_a_revision(store: Store) -> None:
    put(store, "/old/1")
    put(store, "/old/2")
    before = put(store, "/gone")
    done = store.commit([Absent("/a")], [Put("/a", b"1"), Put("/b", b"2"), Delete("/gone"), DeletePrefix("/old/")])
    assert done.succeeded
    assert done.revision > before
    assert store.range("/") == Snapshot(
        (Entry("/a", b"1", done.revision), Entry("/b", b"2", done.revision)), done.revision
    )


def test_revisions_only_grow(store: Store, second: Store) -> None:
    revisions = []
    for number in range(10):
        revisions.append(put(store, "/a", b"%d" % number))
        revisions.append(second.commit([], [Delete("/a")]).revision)
    assert revisions == sorted(set(revisions))


def test_a_commit_that_changes_nothing_succeeds_and_takes_no_revision(store: Store) -> None:
    revision = put(store, "/a")
    for operations in ([], [Delete("/b")], [DeletePrefix("/b/")]):
        done = store.commit([Absent("/b")], operations)
        assert done.succeeded
        assert done.revision == revision


def test_a_prefix_is_removed_and_its_neighbours_stay(store: Store) -> None:
    for name in ("/s", "/s/", "/s/a", "/s/a/b", "/s0", "/t"):
        put(store, name)
    assert store.commit([], [DeletePrefix("/s/")]).succeeded
    assert keys_of(store.range("/")) == ["/s", "/s0", "/t"]


def test_a_hundred_conditions_and_operations_are_one_commit(store: Store) -> None:
    names = [f"/n/{number:03}" for number in range(100)]
    assert store.commit([Absent(name) for name in names], [Put(name, b"") for name in names]).succeeded
    assert keys_of(store.range("/n/")) == names


@pytest.mark.parametrize(
    "operations",
    [
        [Put(f"/n/{number}", b"") for number in range(101)],
        [Put("/a", b"1"), Put("/a", b"2")],
        [Put("/a", b"1"), Delete("/a")],
        [DeletePrefix("/a"), Put("/a/b", b"1")],
    ],
    ids=["more than a hundred", "a key put twice", "a key put and deleted", "a key put and its prefix deleted"],
)
def test_a_commit_that_no_store_can_carry_out_is_broken(store: Store, operations: list[Put]) -> None:
    with pytest.raises(Broken):
        store.commit([], operations)
    assert store.range("/").entries == ()


# -- races --------------------------------------------------------------------------------------------------------


def test_of_many_threads_one_wins_each_key(store: Store, second: Store) -> None:
    keys = [f"/a/{number}" for number in range(40)]
    start = threading.Barrier(8)

    def claim(number: int) -> list[str]:
        mine = random.sample(keys, len(keys))
        claimant = (store, second)[number % 2]
        start.wait()
        return [key for key in mine if claimant.commit([Absent(key)], [Put(key, b"%d" % number)]).succeeded]

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(claim, range(8)))
    assert sorted(key for each in won for key in each) == sorted(keys)
    held = {entry.key: entry.value for entry in store.range("/a/").entries}
    assert held == {key: b"%d" % number for number, each in enumerate(won) for key in each}


def test_of_many_processes_one_wins_each_key(store: Store, url: str) -> None:
    keys = [f"/a/{number}" for number in range(100)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "store.claimant", url]
    claimants = {
        name: subprocess.Popen(
            [*command, name, *keys], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in ("one", "two", "three")
    }
    for process in claimants.values():
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in claimants.values():
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    won = {name: json.loads(process.communicate(timeout=60)[0]) for name, process in claimants.items()}
    assert Counter(key for each in won.values() for key in each) == Counter(keys)
    held = {entry.key: entry.value.decode() for entry in store.range("/a/").entries}
    assert held == {key: name for name, each in won.items() for key in each}


def test_no_increment_is_lost(store: Store, second: Store) -> None:
    put(store, "/count", b"0")

    def increment(number: int) -> None:
        mine = (store, second)[number % 2]
        for _ in range(20):
            done = False
            while not done:
                entry = mine.get("/count")
                assert entry is not None
                following = b"%d" % (int(entry.value) + 1)
                # a proof of its own: after a lost answer, only this tells our 7 from somebody else's 7
                proof = Put(f"/proof/{uuid.uuid4().hex}", b"")
                done = mine.commit([Unchanged("/count", entry.revision)], [Put("/count", following), proof]).succeeded

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(increment, range(4)))
    entry = store.get("/count")
    assert entry is not None
    assert entry.value == b"80"


# -- leases -------------------------------------------------------------------------------------------------------


def test_keys_vanish_with_their_lease_and_others_stay(store: Store, second: Store) -> None:
    lease = store.lease(TTL)
    assert lease.ttl >= TTL
    store.commit([], [Put("/a", b"", lease), Put("/b", b"", lease), Put("/c", b"")])
    assert second.get("/a") is not None
    wait_until(lambda: keys_of(second.range("/")) == ["/c"], TTL + SOON, lambda: "the keys are still there")


def test_an_expired_key_is_absent_for_a_commit(store: Store) -> None:
    store.commit([], [Put("/a", b"old", store.lease(TTL))])
    wait_until(
        lambda: store.commit([Absent("/a")], [Put("/a", b"new")]).succeeded,
        TTL + SOON,
        lambda: "the key is still there",
    )


def test_a_lease_lasts_as_long_as_it_is_kept_alive(store: Store, second: Store) -> None:
    lease = store.lease(TTL)
    store.commit([], [Put("/a", b"", lease)])
    ends_at = time.monotonic() + 2 * TTL
    with Listener(second, "/") as listener:
        while time.monotonic() < ends_at:
            lease.keepalive()
            assert not listener.ended_within(TTL / 4)
        assert listener.deleted == []
    assert second.get("/a") is not None


def test_a_watch_sees_keys_vanish_with_their_lease(store: Store, second: Store) -> None:
    store.commit([], [Put("/a", b"", store.lease(TTL)), Put("/b", b"")])
    with Listener(second, "/") as listener:
        listener.wait_for(lambda: listener.deleted == ["/a"], TTL + SOON)
        assert list(listener.held) == ["/b"]


def test_a_lease_that_ended_cannot_be_kept_alive(store: Store) -> None:
    lease = store.lease(TTL)
    store.commit([], [Put("/a", b"", lease)])
    wait_until(lambda: store.get("/a") is None, TTL + SOON, lambda: "the key is still there")
    with pytest.raises(Gone):
        lease.keepalive()


def test_a_revoked_lease_takes_its_keys_at_once_and_may_be_revoked_again(store: Store, second: Store) -> None:
    lease = store.lease(60)
    store.commit([], [Put("/a", b"", lease)])
    with Listener(second, "/").wait_until_in_sync() as listener:
        lease.revoke()
        assert second.get("/a") is None
        listener.wait_for(lambda: listener.deleted == ["/a"])
    lease.revoke()
    with pytest.raises(Gone):
        lease.keepalive()


def test_nothing_can_be_written_under_a_lease_that_ended(store: Store) -> None:
    lease = store.lease(60)
    lease.revoke()
    with pytest.raises(Gone):
        store.commit([], [Put("/other", b""), Put("/a", b"", lease)])
    assert store.range("/").entries == ()


def test_a_key_written_again_without_its_lease_outlives_it(store: Store) -> None:
    lease, other = store.lease(60), store.lease(60)
    store.commit([], [Put("/a", b"", lease), Put("/b", b"", lease), Put("/c", b"", lease)])
    store.commit([], [Put("/a", b""), Put("/b", b"", other)])
    lease.revoke()
    assert keys_of(store.range("/")) == ["/a", "/b"]


# -- watches ------------------------------------------------------------------------------------------------------


def test_a_watch_begins_with_what_is_there_and_the_mark(store: Store) -> None:
    put(store, "/w/a", b"1")
    put(store, "/w/b", b"2")
    revision = put(store, "/x")
    with Listener(store, "/w/").wait_until_in_sync() as listener:
        snapshot, mark = listener.events[:2]
        assert snapshot == store.range("/w/")
        assert mark == InSync(revision)


def test_a_watch_on_nothing_begins_with_an_empty_snapshot(store: Store, second: Store) -> None:
    with Listener(store, "/w/").wait_until_in_sync() as listener:
        assert isinstance(listener.events[0], Snapshot)
        assert listener.events[0].entries == ()
        revision = put(second, "/w/a", b"1")
        listener.wait_for_revision(revision)
        assert listener.changes == [Entry("/w/a", b"1", revision)]


def test_a_watch_tells_of_changes_by_either_host_and_of_no_others(store: Store, second: Store) -> None:
    put(store, "/w/old", b"1")
    with Listener(store, "/w/").wait_until_in_sync() as listener:
        put(store, "/v/a")
        own = put(store, "/w/a", b"own")
        put(second, "/w")
        theirs = put(second, "/w/b", b"theirs")
        put(second, "/w0")
        last = second.commit([], [Delete("/w/old")]).revision
        listener.wait_for_revision(last)
        assert [(change.key, change.revision) for change in listener.changes] == [
            ("/w/a", own),
            ("/w/b", theirs),
            ("/w/old", last),
        ]
        assert listener.deleted == ["/w/old"]
        assert [event.revision for event in listener.events if isinstance(event, Changes)][-1] == last


def test_every_change_comes_once_and_in_order(store: Store, second: Store) -> None:
    with Listener(second, "/w/") as listener:
        revisions = [put(store, "/w/a", b"%d" % number) for number in range(200)]
        listener.wait_for_revision(revisions[-1])
        heard = [entry for entry in listener.changes if isinstance(entry, Entry)]
        first = listener.events[0]
        assert isinstance(first, Snapshot)
        missed = 200 - len(heard)  # what was written before the watch had begun, and is in the snapshot
        assert [entry.value for entry in first.entries] == ([b"%d" % (missed - 1)] if missed else [])
        assert [entry.revision for entry in heard] == revisions[missed:]
        assert [entry.value for entry in heard] == [b"%d" % number for number in range(missed, 200)]


def test_the_changes_of_one_commit_come_together_in_its_order(store: Store, second: Store) -> None:
    for name in ("/w/1", "/w/2", "/w/3"):
        put(store, name)
    with Listener(second, "/w/").wait_until_in_sync() as listener:
        done = store.commit([], [Put("/w/z", b""), Delete("/w/3"), Put("/w/a", b""), DeletePrefix("/w/1")])
        listener.wait_for_revision(done.revision)
        changes = [event for event in listener.events if isinstance(event, Changes)]
        assert len(changes) == 1
        assert [change.key for change in changes[0].changes] == ["/w/z", "/w/3", "/w/a", "/w/1"]


@pytest.mark.parametrize("seed", range(3))
def test_what_a_watch_says_adds_up_to_what_the_store_holds(store: Store, second: Store, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    keys = [f"/w/{number}" for number in range(12)]
    listeners = []
    for number in range(150):
        if number % 50 == 0:
            listeners.append(Listener((store, second)[len(listeners) % 2], "/w/"))
        writer = chance.choice((store, second))
        key = chance.choice(keys)
        kind = chance.random()
        if kind < 0.6:
            writer.commit([], [Put(name, b"%d" % number) for name in chance.sample(keys, chance.randint(1, 4))])
        elif kind < 0.9:
            writer.commit([], [Delete(key)])
        elif kind < 0.95:
            writer.commit([], [DeletePrefix(key)])
        else:
            lease = writer.lease(60)
            writer.commit([], [Put(key, b"leased", lease)])
            lease.revoke()
    last = put(store, "/w/last")
    expected = {entry.key: entry for entry in second.range("/w/").entries}
    for listener in listeners:
        with listener:
            listener.wait_for_revision(last)
            assert listener.held == expected
            revisions = [change.revision for change in listener.changes]
            assert revisions == sorted(revisions)
            assert max(Counter((change.key, change.revision) for change in listener.changes).values()) == 1


def test_a_big_change_passes_through_a_watch(store: Store, second: Store) -> None:
    values = [os.urandom(1 << 20) for _ in range(3)]
    with Listener(second, "/w/").wait_until_in_sync() as listener:
        for value in values:
            last = put(store, "/w/a", value)
        listener.wait_for_revision(last)
        assert [change.value for change in listener.changes if isinstance(change, Entry)] == values


def test_a_watch_closed_from_another_thread_ends_soon(store: Store) -> None:
    with Listener(store, "/w/").wait_until_in_sync() as listener:
        listener.watch.close()
        assert listener.ended_within(1.0)
        put(store, "/w/a")
        assert listener.changes == []
    assert listener.error is None


def test_a_watch_closed_before_its_first_event_yields_nothing(store: Store) -> None:
    with store.watch("/w/") as watch:
        watch.close()
        assert list(watch) == []


def test_watches_end_with_their_store(client: Callable[[], Store]) -> None:
    mine = client()
    with Listener(mine, "/w/").wait_until_in_sync() as listener:
        mine.close()
        assert listener.ended_within(SOON)
    assert listener.error is None


# -- time ---------------------------------------------------------------------------------------------------------


def test_no_call_outlives_its_deadline(store: Store) -> None:
    lease = store.lease(60)
    calls: list[Callable[[], object]] = [
        lambda: store.get("/a"),
        lambda: store.range("/"),
        lambda: store.commit([], [Put("/a", b"")]),
        lambda: store.lease(TTL),
        lease.keepalive,
        lease.revoke,
    ]
    for call in calls:
        with deadline.within(0), pytest.raises(Retry):
            call()
    assert store.range("/").entries == ()


def test_a_closed_store_answers_retry(client: Callable[[], Store]) -> None:
    mine = client()
    put(mine, "/a")
    mine.close()
    mine.close()
    with pytest.raises(Retry):
        mine.get("/a")
    with pytest.raises(Retry):
        put(mine, "/a")
