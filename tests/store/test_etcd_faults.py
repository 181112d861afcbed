"""What the etcd client and the store on it do when servers and links fail.  Trap numbers: docs/decisions/0001."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from fault_proxy import FaultProxy
from spanlan import deadline
from spanlan.errors import Retry
from spanlan.store import etcd3
from spanlan.store.base import Absent, Changes, Delete, Deleted, Entry, InSync, Lost, Put, Snapshot, Unchanged
from spanlan.store.etcd import EtcdStore
from spanlan.store.etcd3 import wire
from store.etcd_server import EtcdCluster, EtcdServer, wait_until
from store.followed import Followed


@pytest.fixture
def proxy(etcd: EtcdServer) -> Iterator[FaultProxy]:
    """A proxy in front of the shared etcd."""
    with FaultProxy(etcd.client_port) as made:
        yield made


@pytest.fixture
def direct(etcd: EtcdServer, root: str) -> Iterator[EtcdStore]:
    """A store that reaches the shared etcd without the proxy."""
    store = EtcdStore([etcd.endpoint], root=root)
    yield store
    store.close()


@pytest.fixture
def through(proxy: FaultProxy, root: str) -> Iterator[EtcdStore]:
    """The same store behind the proxy."""
    store = EtcdStore([proxy.endpoint], root=root)
    yield store
    store.close()


def state(seen: list[object]) -> dict[str, bytes]:
    """What a receiver holds that did as it was told."""
    held: dict[str, bytes] = {}
    for one in seen:
        if isinstance(one, Snapshot):
            held = {entry.key: entry.value for entry in one.entries}
        elif isinstance(one, Changes):
            for change in one.changes:
                if isinstance(change, Deleted):
                    held.pop(change.key, None)
                else:
                    held[change.key] = change.value
    return held


def revisions(seen: list[object]) -> list[int]:
    """Of all events of a client's watch, in the order they came."""
    return [event.kv.mod_revision for one in seen if isinstance(one, etcd3.Events) for event in one.events]


# -- watches -------------------------------------------------------------------------------------------------------


def test_a_watch_survives_kill_9_of_the_server_and_loses_nothing(fragile: EtcdServer):
    """Trap 3: the watch of other clients ends here, some without a sign."""
    store, other = EtcdStore([fragile.endpoint]), EtcdStore([fragile.endpoint])
    with Followed(store.watch("/")) as followed:
        followed.wait_for(InSync)
        fragile.kill()
        followed.wait_for(Lost)
        mark = len(followed.seen)
        fragile.start()
        assert other.commit([Absent("/k")], [Put("/k", b"v")]).succeeded

        followed.wait(lambda seen: state(seen) == {"/k": b"v"}, 15)
        followed.wait_for(InSync, after=mark)
        assert not any(isinstance(one, Snapshot) for one in followed.seen[mark:]), "it resumes, it does not list again"
    store.close()
    other.close()


def test_a_catch_up_that_is_cut_in_the_middle_loses_nothing_and_repeats_nothing(
    etcd: EtcdServer, proxy: FaultProxy, root: str
):
    """Traps 4 and 5: the header's revision is ahead of the events that are still to come."""
    top = root.encode()
    with etcd3.Client([etcd.endpoint]) as writer, etcd3.Client([proxy.endpoint]) as client:
        written = [writer.put(top + b"%d" % number, bytes(600)) for number in range(3000)]
        for cut_after in (200_000, 1_500_000):
            proxy.cut_after, cuts = cut_after, proxy.cuts
            proxy.cut()
            with Followed(client.watch_prefix(top, start_revision=written[0])) as followed:
                followed.wait(lambda seen: len(revisions(seen)) >= len(written), 20)
            assert proxy.cuts == cuts + 1
            assert revisions(followed.seen) == written
            assert any(isinstance(one, etcd3.Disconnected) for one in followed.seen)


def test_an_event_that_comes_again_is_dropped(etcd: EtcdServer):
    """Trap 5: some releases of etcd send events twice, or go back in time."""

    def event(revision: int) -> object:
        return wire.messages.Event(kv=wire.messages.KeyValue(key=b"k", mod_revision=revision))

    with etcd3.Client([etcd.endpoint]) as client:
        watch = client.watch(b"k", start_revision=5)
        happenings = [*watch._deliver([event(4), event(5), event(7)]), *watch._deliver([event(7)])]
        happenings += watch._deliver([event(6), event(7), event(8)])

    assert revisions(happenings) == [5, 7, 8]


def test_what_vanished_before_a_compaction_is_not_in_the_new_snapshot(fragile: EtcdServer):
    """Trap 6: the deletion itself is not to be had any more."""
    direct = EtcdStore([fragile.endpoint])
    with FaultProxy(fragile.client_port) as proxy, etcd3.Client([fragile.endpoint]) as operator:
        store = EtcdStore([proxy.endpoint])
        direct.commit([], [Put("/goes", b"1"), Put("/stays", b"1")])
        with Followed(store.watch("/")) as followed:
            followed.wait_for(InSync)
            mark = len(followed.seen)
            proxy.refuse = True
            proxy.cut()
            followed.wait_for(Lost)
            direct.commit([], [Delete("/goes")])
            operator.compact(direct.commit([], [Put("/new", b"1")]).revision)
            proxy.heal()

            snapshot = followed.wait_for(Snapshot, after=mark)
            assert [entry.key for entry in snapshot.entries] == ["/new", "/stays"]
            followed.wait_for(InSync, after=mark)
        store.close()
    direct.close()


def test_a_server_that_comes_back_without_its_data_is_listed_again(fragile: EtcdServer):
    """It starts again at a low revision: a watch that resumed where it stopped would hear nothing for long.

    The watch of the quiet key has seen a revision only that the new server has passed when it is reached again.
    """
    with FaultProxy(fragile.client_port) as proxy:
        store = EtcdStore([proxy.endpoint])
        store.commit([], [Put("/quiet", b"1")])
        with Followed(store.watch("/quiet")) as quiet, Followed(store.watch("/busy")) as busy:
            quiet.wait_for(InSync)
            for number in range(20):
                store.commit([], [Put(f"/busy/{number}", b"1")])
            proxy.refuse = True
            fragile.stop()
            marks = []
            for followed in (quiet, busy):
                followed.wait_for(Lost)
                marks.append((followed, len(followed.seen)))
            shutil.rmtree(fragile.directory / fragile.name)
            fragile.start()
            other = EtcdStore([fragile.endpoint])
            for _ in range(5):
                other.commit([], [Put("/busy/new", b"1")])
            proxy.heal()

            for followed, mark in marks:
                followed.wait_for(InSync, after=mark)
                assert state(followed.seen) == ({} if followed is quiet else {"/busy/new": b"1"})
        for each in (store, other):
            each.close()


@pytest.mark.parametrize(
    "missed",
    [
        [],
        [Put("/a", b"again")],
        [Delete("/a")],
        [Put("/c", b"1")],
        [Put("/c", b"1"), Delete("/c")],
        [Put("/c", b"1"), Delete("/a")],
        [Delete("/a"), Delete("/b")],
        [Delete("/a"), Put("/a", b"anew")],
    ],
    ids=lambda missed: " ".join(f"{type(one).__name__}{one.key}" for one in missed) or "nothing",
)
def test_the_mark_in_sync_comes_after_all_that_was_missed(
    proxy: FaultProxy, through: EtcdStore, direct: EtcdStore, missed: list[Put | Delete]
):
    direct.commit([], [Put("/a", b"1"), Put("/b", b"1")])
    with Followed(through.watch("/")) as followed:
        followed.wait_for(InSync)
        proxy.refuse = True
        proxy.cut()
        followed.wait_for(Lost)
        mark = len(followed.seen)
        for operation in missed:
            direct.commit([], [operation])
        proxy.heal()

        followed.wait_for(InSync, after=mark)
        at = next(n for n, one in enumerate(followed.seen) if n >= mark and isinstance(one, InSync))
        assert state(followed.seen[:at]) == {entry.key: entry.value for entry in direct.range("/").entries}


def test_a_watch_that_is_cut_off_again_and_again_ends_up_with_the_truth(
    proxy: FaultProxy, through: EtcdStore, direct: EtcdStore
):
    """Traps 4 and 5, at random: events of all kinds while the link is cut ten times."""
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            key = f"/{number % 40}"
            direct.commit([], [Delete(key)] if number % 3 == 0 else [Put(key, b"%d" % number)])

    writer = threading.Thread(target=write)
    with Followed(through.watch("/")) as followed:
        followed.wait_for(InSync)
        writer.start()
        for _ in range(10):
            mark = len(followed.seen)
            proxy.cut()
            followed.wait_for(Lost, after=mark)
            followed.wait_for(InSync, after=mark)
        stop.set()
        writer.join()
        truth = {entry.key: entry.value for entry in direct.range("/").entries}
        followed.wait(lambda seen: state(seen) == truth)
        seen = [change.revision for one in followed.seen if isinstance(one, Changes) for change in one.changes]
        assert seen == sorted(set(seen)), "each change once, in order"


def test_a_watch_lists_everything_again_from_time_to_time(etcd: EtcdServer, root: str):
    """A remedy for events that a server lost (several releases did)."""
    store = EtcdStore([etcd.endpoint], root=root, relist=0.5)
    with Followed(store.watch("/")) as followed:
        followed.wait(lambda seen: sum(isinstance(one, Snapshot) for one in seen) >= 3)
        assert not any(isinstance(one, Lost) for one in followed.seen)
    store.close()


def test_a_watch_of_a_store_that_is_away_waits_for_it(fragile: EtcdServer):
    fragile.stop()
    store = EtcdStore([fragile.endpoint], timeout=1)
    with Followed(store.watch("/")) as followed:
        assert "check that etcd runs there" in followed.wait_for(Lost).reason
        fragile.start()
        followed.wait_for(Snapshot, 15)
        followed.wait_for(InSync)
    store.close()


def test_a_closed_watch_and_a_closed_store_end_the_iteration(through: EtcdStore, proxy: FaultProxy):
    with Followed(through.watch("/")) as followed:
        followed.wait_for(InSync)
    proxy.refuse = True
    proxy.cut()
    with Followed(through.watch("/")) as other:
        other.wait_for(Lost)
        through.close()
        other.wait(lambda _: other.ended)


# -- writes whose answer is lost -----------------------------------------------------------------------------------


def _commit_without_answer(
    proxy: FaultProxy, marker: str, done: Callable[[], bool], commit: Callable[[], object]
) -> object:
    """Run ``commit`` while the answer to what contains ``marker`` is lost, although the server carried it out."""
    proxy.lose_replies_after(marker.encode())

    def cut_when_done() -> None:
        wait_until(done, 4, lambda: "the server did not carry it out")
        proxy.heal()
        proxy.cut()

    cutter = threading.Thread(target=cut_when_done)
    cutter.start()
    try:
        return commit()
    finally:
        cutter.join()


def test_a_won_claim_whose_answer_was_lost_is_a_won_claim(proxy: FaultProxy, through: EtcdStore, direct: EtcdStore):
    """Trap 8: a client that blindly asks again hears that it lost to itself, and the address leaks."""
    through.get("/warm")

    done = _commit_without_answer(
        proxy,
        "claim-of-mine",
        lambda: direct.get("/address") is not None,
        lambda: through.commit([Absent("/address")], [Put("/address", b"claim-of-mine")]),
    )

    entry = direct.get("/address")
    assert entry == Entry("/address", b"claim-of-mine", done.revision)
    assert done.succeeded


def test_a_lost_claim_whose_answer_was_lost_is_a_lost_claim(proxy: FaultProxy, through: EtcdStore, direct: EtcdStore):
    direct.commit([], [Put("/address", b"theirs")])
    through.get("/warm")

    done = _commit_without_answer(
        proxy,
        "claim-of-mine",
        proxy.losing_replies.is_set,
        lambda: through.commit([Absent("/address")], [Put("/address", b"claim-of-mine")]),
    )

    assert not done.succeeded
    assert done.current["/address"].value == b"theirs"


def test_a_removal_whose_answer_was_lost_has_succeeded(proxy: FaultProxy, through: EtcdStore, direct: EtcdStore):
    mine = direct.commit([], [Put("/to-be-removed", b"mine")]).revision
    through.get("/warm")

    done = _commit_without_answer(
        proxy,
        "/to-be-removed",
        lambda: direct.get("/to-be-removed") is None,
        lambda: through.commit([Unchanged("/to-be-removed", mine)], [Delete("/to-be-removed")]),
    )

    assert done.succeeded


def test_a_claim_that_meets_its_equal_without_a_lost_answer_has_not_succeeded(direct: EtcdStore):
    direct.commit([], [Put("/address", b"same")])

    assert not direct.commit([Absent("/address")], [Put("/address", b"same")]).succeeded


def test_a_plain_put_whose_answer_was_lost_says_that_its_outcome_is_unknown(
    etcd: EtcdServer, proxy: FaultProxy, root: str
):
    """Trap 8: it is not sent again behind the caller's back."""
    key = root.encode()
    with etcd3.Client([proxy.endpoint]) as client, etcd3.Client([etcd.endpoint]) as observer:
        client.get(key)
        with pytest.raises(etcd3.Unreachable) as error:
            _commit_without_answer(
                proxy, "put-once", lambda: observer.get(key) is not None, lambda: client.put(key, b"put-once")
            )
        assert error.value.outcome_unknown
        found = observer.get(key)
        assert found is not None
        assert found.version == 1


def test_a_plain_put_to_a_server_that_is_not_there_was_certainly_not_done(fragile: EtcdServer):
    fragile.stop()
    with etcd3.Client([fragile.endpoint], timeout=0.5) as client, pytest.raises(etcd3.Unreachable) as error:
        client.put(b"/k", b"v")
    assert not error.value.outcome_unknown


# -- servers that hang, die and come back --------------------------------------------------------------------------


def test_a_frozen_server_is_an_error_in_time_and_within_the_deadline(fragile: EtcdServer):
    """Trap 14: without a deadline of its own a call waits for ever."""
    store = EtcdStore([fragile.endpoint], timeout=5)
    store.get("/k")
    fragile.pause()
    try:
        started = time.monotonic()
        with pytest.raises(Retry, match=f"cannot reach etcd at {fragile.endpoint}.*no answer in time"):
            store.get("/k")
        assert time.monotonic() - started < 12

        started = time.monotonic()
        with deadline.within(0.5), pytest.raises(Retry):
            store.commit([], [Put("/k", b"v")])
        assert time.monotonic() - started < 4
    finally:
        fragile.resume()
    store.close()


def test_an_endpoint_that_hangs_or_is_gone_leaves_time_for_the_others(cluster: EtcdCluster):
    """Trap 19, with three members: one frozen, then one dead; calls of every kind succeed within their time."""
    stores = [EtcdStore(cluster.endpoints, root=f"/{number}") for number in range(6)]
    follower = next(member for member in cluster.members if not _leads(member))
    follower.pause()
    for number, store in enumerate(stores):
        assert store.commit([Absent("/k")], [Put("/k", b"%d" % number)]).succeeded
        store.lease(5).keepalive()
    follower.resume()
    follower.kill()
    for store in stores:
        with Followed(store.watch("/")) as followed:
            followed.wait_for(InSync)
        assert store.get("/k") is not None
        store.close()


def _leads(member: EtcdServer) -> bool:
    with etcd3.Client([member.endpoint]) as client:
        status = client.status()
        return status.leader == status.header.member_id


def test_a_member_without_leader_is_noticed_by_calls_and_watches(cluster: EtcdCluster):
    """Trap 9: without ``hasleader`` a cut-off member feeds nothing, and says nothing."""
    alone, *others = cluster.members
    store = EtcdStore([alone.endpoint], timeout=3)
    with Followed(store.watch("/")) as followed:
        followed.wait_for(InSync)
        for member in others:
            member.kill()

        assert "no leader" in followed.wait_for(Lost, 15).reason
        with pytest.raises(Retry, match="no leader"):
            store.commit([], [Put("/k", b"v")])
        mark = len(followed.seen)
        cluster.start()
        assert store.commit([Absent("/k")], [Put("/k", b"v")]).succeeded
        followed.wait(lambda seen: state(seen) == {"/k": b"v"}, 15)
        followed.wait_for(InSync, after=mark)
    store.close()


def test_a_watch_leaves_a_member_that_freezes(cluster: EtcdCluster):
    """Trap 10: only pings with a timeout of their own find a frozen server (10 s + 5 s)."""
    with etcd3.Client(cluster.endpoints) as client, Followed(client.watch_prefix(b"/")) as followed:
        at = followed.wait_for(etcd3.Connected).endpoint
        frozen = next(member for member in cluster.members if member.endpoint == at)
        healthy = next(member for member in cluster.members if member.endpoint != at)
        frozen.pause()
        with etcd3.Client([member.endpoint for member in cluster.members if member is not frozen]) as writer:
            wait_until(lambda: _writes(writer), 10, lambda: f"no leader beside {frozen.name}: {healthy.log_tail()}")
        started = time.monotonic()

        followed.wait_for(etcd3.Events, 20)
        assert time.monotonic() - started < 20


def _writes(client: etcd3.Client) -> bool:
    try:
        return client.put(b"/k", b"v", timeout=2) > 0
    except etcd3.Unreachable:
        return False


def test_a_client_that_has_been_idle_is_not_told_off_for_its_pings(fragile: EtcdServer):
    """Trap 11: etcd answers pings without a stream with GOAWAY too_many_pings.

    Both clients ping a hundred times as eagerly as usual; one of them does so without a stream, as ours never does.
    """
    eager = [("grpc.keepalive_time_ms", 100)]
    with FaultProxy(fragile.client_port) as ours, FaultProxy(fragile.client_port) as theirs:
        with (
            etcd3.Client([ours.endpoint], options=eager) as good,
            etcd3.Client([theirs.endpoint], options=[*eager, ("grpc.keepalive_permit_without_calls", 1)]) as bad,
        ):
            good.status()
            bad.status()
            wait_until(lambda: b"too_many_pings" in theirs.to_client, 30, lambda: "etcd does not mind")
            assert b"too_many_pings" not in ours.to_client
            assert good.status().version
        assert ours.connections == 1


def test_a_server_that_was_restarted_is_found_again_soon(fragile: EtcdServer):
    """Trap 12: the shortest pause between attempts to connect is at the same time the limit for connecting."""
    with etcd3.Client([fragile.endpoint]) as client:
        for round_ in range(3):
            assert client.put(b"/k", b"%d" % round_)
            fragile.kill()
            with pytest.raises(etcd3.Unreachable):
                client.get(b"/k", timeout=0.3)
            fragile.start()
            started = time.monotonic()
            assert client.get(b"/k") is not None
            assert time.monotonic() - started < 8


def test_a_link_that_swallows_everything_is_an_error_in_time(proxy: FaultProxy, through: EtcdStore):
    through.get("/k")
    proxy.blackhole = True

    with deadline.within(1), pytest.raises(Retry):
        through.get("/k")
    proxy.heal()
    proxy.cut()
    through.get("/k")
