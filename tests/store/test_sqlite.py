"""What is particular to the store in a file: the file, other processes, power cuts, a full disk."""

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from spanlan import deadline
from spanlan.errors import Broken, Gone, Retry
from spanlan.store.base import Absent, Delete, DeletePrefix, InSync, Lost, Put, Snapshot
from spanlan.store.sqlite import SqliteStore
from store.listener import Listener

SOON = 5.0

# A process that writes until it is killed: always /a and /b together, so that a torn commit shows.
WRITER = """
import sys
from spanlan.store.base import Put
from spanlan.store.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
number = 0
while True:
    number += 1
    value = b"%d" % number
    store.commit([], [Put("/a", value), *(Put(f"/fill/{n}", value * 500) for n in range(20)), Put("/b", value)])
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""

# A process that stands in the middle of a transaction, all of it written into the file's WAL as far as SQLite does.
HALF_WAY = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE state SET revision = revision + 1")
for number in range(500):
    connection.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, 999, NULL)", (f"/half/{number}", b"x" * 2000))
sys.stdout.write("half way\\n")
sys.stdout.flush()
time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spanlan.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    store.close()


@contextmanager
def process(script: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs ``script``, until the end of the block."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], env=environment, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def line_of(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


@contextmanager
def by_hand(path: Path) -> Iterator[sqlite3.Connection]:
    """The file as somebody else opens it; what the block wrote is committed, and a lock it took is let go."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


# -- the file -----------------------------------------------------------------------------------------------------


def test_the_file_is_ours_alone_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "lib" / "spanlan" / "spanlan.db"
    old = os.umask(0)
    try:
        store = SqliteStore(path)
        store.commit([], [Put("/a", b"1")])
    finally:
        os.umask(old)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert len(list(path.parent.iterdir())) == 3  # the file, its -wal and its -shm
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    store.close()


def test_a_store_opened_again_holds_what_was_written(path: Path) -> None:
    first = SqliteStore(path)
    revision = first.commit([], [Put("/a", b"1")]).revision
    first.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    again = SqliteStore(str(path))
    assert again.range("/") == Snapshot(again.range("/a").entries, revision)
    assert again.commit([], [Put("/b", b"")]).revision == revision + 1
    again.close()


def test_a_name_with_odd_characters_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a b?c#d%20é.db"
    store = SqliteStore(path)
    store.commit([], [Put("/a", b"1")])
    store.close()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_many_may_open_a_new_file_at_once(path: Path) -> None:
    barrier = threading.Barrier(8)
    opened: list[SqliteStore] = []

    def open_it() -> None:
        barrier.wait()
        opened.append(SqliteStore(path))

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(store.commit([Absent("/a")], [Put("/a", b"")]).succeeded for store in opened) == 1
    assert len(opened) == 8
    for store in opened:
        store.close()


def test_commits_wait_for_the_disk(store: SqliteStore) -> None:
    with store._file.connection(1) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_closing_frees_every_descriptor(path: Path) -> None:
    def opened() -> list[str]:
        # the listing has a descriptor of its own, which is away when it is looked at
        descriptors = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
        return [target for target in descriptors if target.startswith(str(path))]

    store = SqliteStore(path)
    with Listener(store, "/") as listener:
        listener.wait_until_in_sync()
        store.commit([], [Put("/a", b"")])
        assert opened()
        store.close()
        assert listener.ended_within(SOON)
    assert opened() == []
    assert [thread.name for thread in threading.enumerate() if thread.name == "sqlite-pulse"] == []


# -- a file that cannot be used -----------------------------------------------------------------------------------


def test_a_file_of_a_newer_version_is_broken_and_stays_as_it_is(path: Path) -> None:
    SqliteStore(path).close()
    with by_hand(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    with pytest.raises(Broken, match=rf"{path} was written by a newer spanlan \(schema 7.*upgrade"):
        SqliteStore(path)
    with by_hand(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (7,)


def test_the_database_of_another_program_is_left_alone(path: Path) -> None:
    with by_hand(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    content = path.read_bytes()
    with pytest.raises(Broken, match=f"{path} is a database of another program"):
        SqliteStore(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"what is this" * 1000, os.urandom(8192)], ids=["text", "random"])
def test_a_file_that_is_no_database_is_broken(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(Broken, match=f"{path} is damaged.*backup"):
        SqliteStore(path)
    assert path.read_bytes() == content


def test_a_damaged_page_is_broken_when_it_is_read(path: Path) -> None:
    store = SqliteStore(path)
    store.commit([], [Put(f"/a/{number}", os.urandom(3000)) for number in range(100)])
    store.close()
    with path.open("r+b") as file:
        file.seek(4096 * 8)
        file.write(os.urandom(path.stat().st_size - 4096 * 8))
    store = SqliteStore(path)
    with pytest.raises(Broken, match=f"{path} is damaged"):
        store.range("/")
    store.close()


def test_a_directory_in_place_of_the_file_is_broken(tmp_path: Path) -> None:
    (tmp_path / "dir.db").mkdir()
    with pytest.raises(Broken, match=r"dir\.db cannot be opened for writing"):
        SqliteStore(tmp_path / "dir.db")


def test_a_file_in_place_of_the_directory_is_broken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Broken, match=r"spanlan\.db cannot be made: .*file is not a directory"):
        SqliteStore(tmp_path / "file" / "spanlan.db")


def test_a_file_of_somebody_else_is_broken(path: Path) -> None:
    SqliteStore(path).close()
    os.chown(path, 65534, 65534)
    path.chmod(0o644)
    script = "import sys\nfrom spanlan.store.sqlite import SqliteStore\nSqliteStore(sys.argv[1])\n"
    done = subprocess.run(
        # root without the right to open everybody's files is a user like others
        ["setpriv", "--bounding-set=-dac_override,-dac_read_search", sys.executable, "-c", script, str(path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"Broken: the store's file {path} cannot be opened for writing" in done.stderr
    assert "belong to the user spanlan runs as" in done.stderr


def test_a_full_disk_is_said_to_be_full_and_writing_goes_on_when_it_no_longer_is(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "spanlan-test", str(disk)], check=True)
    store = None
    try:
        store = SqliteStore(disk / "spanlan.db")
        store.commit([], [Put("/a", b"1")])
        with (disk / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
            while ballast.write(b"x" * 4096):
                pass
        assert os.statvfs(disk).f_bavail == 0
        with pytest.raises(Retry, match=f"{disk}/spanlan.db is full: free some space"):
            store.commit([], [Put("/a", b"2"), Put("/b", b"x" * 100_000)])
        with pytest.raises(Retry, match=f"{disk}/new.db is full: free some space"):
            SqliteStore(disk / "new.db")
        # what was there is still read
        assert [entry.value for entry in store.range("/").entries] == [b"1"]
        (disk / "ballast").unlink()
        assert store.commit([Absent("/b")], [Put("/a", b"3"), Put("/b", b"x" * 100_000)]).succeeded
    finally:
        if store is not None:
            store.close()
        subprocess.run(["umount", str(disk)], check=True)


# -- other processes ----------------------------------------------------------------------------------------------


def test_a_locked_file_is_retry_within_the_deadline(store: SqliteStore, path: Path) -> None:
    store.commit([], [Put("/a", b"1")])
    with by_hand(path) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with deadline.within(0.3), pytest.raises(Retry, match=f"{path} is locked.*fuser"):
            store.commit([], [Put("/a", b"2")])
        assert 0.2 < time.monotonic() - began < 4
        # readers are not held up
        entry = store.get("/a")
        assert entry is not None
        assert entry.value == b"1"
    assert store.commit([], [Put("/a", b"2")]).succeeded


def test_a_queue_of_our_own_threads_is_bounded_by_the_deadline_too(store: SqliteStore, path: Path) -> None:
    with by_hand(path) as other:
        other.execute("BEGIN IMMEDIATE")
        took: list[float] = []

        def commit() -> None:
            began = time.monotonic()
            with deadline.within(0.4), pytest.raises(Retry):
                store.commit([], [Put("/a", b"")])
            took.append(time.monotonic() - began)

        threads = [threading.Thread(target=commit) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(took) == 6
    assert max(took) < 1.5


def test_a_commit_goes_through_when_the_lock_comes_free(store: SqliteStore, path: Path) -> None:
    with by_hand(path) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = threading.Thread(target=store.commit, args=([], [Put("/a", b"")]))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        other.execute("ROLLBACK")
        waiting.join(SOON)
    assert store.get("/a") is not None


def test_a_process_killed_while_it_writes_leaves_whole_commits(path: Path) -> None:
    for _ in range(3):
        with process(WRITER, path) as writer:
            while int(line_of(writer)) < 20:
                pass
            writer.send_signal(signal.SIGKILL)
            writer.wait(SOON)
            assert writer.stdout is not None
            confirmed = max([20, *(int(line) for line in writer.stdout.read().split("\n")[:-1])])
        store = SqliteStore(path)
        one, other = store.get("/a"), store.get("/b")
        assert one is not None
        assert other is not None
        assert (one.value, one.revision) == (other.value, other.revision)
        # what was confirmed is there, and at most the one commit that it could not confirm any more
        assert int(one.value) - confirmed in (0, 1)
        assert store.commit([Absent("/new")], [Put("/new", b""), Delete("/a")]).succeeded
        store.commit([], [Delete("/new")])
        with store._file.connection(1) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        store.close()


def test_a_process_killed_in_mid_transaction_leaves_nothing_of_it(store: SqliteStore, path: Path) -> None:
    before = store.commit([], [Put("/a", b"1")])
    with process(HALF_WAY, path) as writer:
        assert line_of(writer) == "half way"
        assert store.range("/").revision == before.revision
        writer.send_signal(signal.SIGKILL)
        writer.wait(SOON)
    assert [entry.key for entry in store.range("/").entries] == ["/a"]
    assert store.commit([], [Put("/b", b"")]).revision == before.revision + 1


def test_a_watch_sees_what_another_process_commits(store: SqliteStore, path: Path) -> None:
    with Listener(store, "/a").wait_until_in_sync() as listener, process(WRITER, path) as writer:
        assert int(line_of(writer)) == 1
        listener.wait_for(lambda: len(listener.changes) >= 20)
        assert [int(change.value) for change in listener.changes[:20]] == list(range(1, 21))  # type: ignore[union-attr]


def test_a_commit_of_our_own_is_heard_of_without_a_poll(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spanlan.store.sqlite.watch._POLL", 3600.0)
    with Listener(store, "/").wait_until_in_sync() as listener:
        listener.wait_for_revision(store.commit([], [Put("/a", b"")]).revision)
        assert [change.key for change in listener.changes] == ["/a"]


def test_a_watch_that_cannot_read_says_so_and_comes_back(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with Listener(store, "/").wait_until_in_sync() as listener:
        with monkeypatch.context() as patched:
            refusing = Retry("the file is locked")

            def refuse(patience: float) -> None:
                raise refusing

            patched.setattr(store._file, "connection", refuse)
            store._pulse.beat()
            listener.wait_for(lambda: isinstance(listener.events[-1], Lost))
        revision = store.commit([], [Put("/a", b"")]).revision
        listener.wait_for_revision(revision)
        listener.wait_for(lambda: listener.events[-1] == InSync(revision))
        assert [type(event).__name__ for event in listener.events[2:]] == ["Lost", "Changes", "InSync"]


# -- the log of changes -------------------------------------------------------------------------------------------


def test_a_watch_that_fell_behind_a_trimmed_log_gets_a_snapshot(path: Path) -> None:
    store = SqliteStore(path, history=50)
    store.commit([], [Put("/w/vanishes", b"")])
    watch = iter(store.watch("/w/"))
    assert isinstance(next(watch), Snapshot)
    assert isinstance(next(watch), InSync)
    store.commit([], [Delete("/w/vanishes")])
    for hundred in range(12):
        last = store.commit([], [Put(f"/w/{number}", b"%d" % hundred) for number in range(100)]).revision
    again = next(watch)
    assert again == store.range("/w/")
    assert "/w/vanishes" not in [entry.key for entry in store.range("/w/").entries]
    assert next(watch) == InSync(last)
    following = store.commit([], [Delete("/w/0")]).revision
    changes = next(watch)
    assert changes.revision == following
    watch.close()  # type: ignore[attr-defined]
    store.close()


def test_the_log_does_not_grow_without_end(path: Path) -> None:
    store = SqliteStore(path, history=50)
    for _ in range(30):
        store.commit([], [Put(f"/w/{number}", b"") for number in range(100)])
    with by_hand(path) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM log").fetchone()
        assert connection.execute("SELECT logged FROM state").fetchone() == (rows,)
        assert rows <= 50 + 1000 + 100
    store.close()


def test_a_prefix_larger_than_the_log_vanishes_for_watches_too(path: Path) -> None:
    store = SqliteStore(path, history=50)
    with Listener(store, "/w/") as listener:
        for hundred in range(12):
            store.commit([], [Put(f"/w/{hundred}/{number}", b"") for number in range(100)])
        last = store.commit([], [DeletePrefix("/w/")]).revision
        listener.wait_for_revision(last)
        assert listener.held == {}
    store.close()


# -- leases and reboots -------------------------------------------------------------------------------------------


def test_a_reboot_ends_every_lease(path: Path) -> None:
    store = SqliteStore(path)
    lease = store.lease(3600)
    store.commit([], [Put("/a", b"", lease), Put("/b", b"")])
    # as after a reboot: the file says that the lease was granted under another boot id
    with by_hand(path) as connection:
        connection.execute("UPDATE leases SET boot = 'the boot before'")
    with Listener(store, "/") as listener:
        listener.wait_until_in_sync()
        assert isinstance(listener.events[0], Snapshot)
        assert [entry.key for entry in listener.events[0].entries] == ["/b"]
    assert store.get("/a") is None
    with pytest.raises(Gone):
        lease.keepalive()
    store.close()


def test_expired_keys_are_not_read_even_if_nobody_writes_or_watches(store: SqliteStore, path: Path) -> None:
    store.commit([], [Put("/a", b"", store.lease(3600)), Put("/b", b"", store.lease(3600))])
    before = store.range("/").revision
    with by_hand(path) as connection:
        connection.execute("UPDATE leases SET expires = 0")
    assert store.get("/a") is None
    assert store.range("/").entries == ()
    assert store.range("/").revision == before + 1


def test_the_machine_asleep_longer_than_the_lease_ends_it(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = store.lease(60)
    store.commit([], [Put("/a", b"", lease)])
    awake = time.clock_gettime(time.CLOCK_BOOTTIME)
    monkeypatch.setattr("spanlan.store.sqlite.clock.now", lambda: awake + 61)
    with pytest.raises(Gone):
        lease.keepalive()
    assert store.get("/a") is None


def test_a_lease_of_a_store_that_was_copied_away_does_not_match_another(tmp_path: Path) -> None:
    """A host's records restored from a backup: the lease of then is not the one of now."""
    store = SqliteStore(tmp_path / "one.db")
    old = store.lease(60)
    old.revoke()
    store.close()
    shutil.copy(tmp_path / "one.db", tmp_path / "two.db")
    restored = SqliteStore(tmp_path / "two.db")
    restored.commit([], [Put("/a", b"", restored.lease(60))])
    with pytest.raises(Retry):
        old.revoke()
    assert restored.get("/a") is not None
    restored.close()
