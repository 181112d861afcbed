"""The database file: opening it, its schema, its connections, and what its failures mean.

Nothing here knows of keys, revisions or watches.  Every ``sqlite3.Error`` ends in this module: what leaves it is Retry
or Broken, with the name of the file and the cure.
"""

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EEXIST, ENOSPC, ENOTDIR
from pathlib import Path
from urllib.parse import quote

from spanlan.errors import Broken, Retry, SpanlanError

# "span", so that file(1) and we ourselves can tell the file from another program's database.
_APPLICATION_ID = int.from_bytes(b"span", "big")
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE state (
    revision INTEGER NOT NULL,  -- of the last commit that wrote
    trimmed  INTEGER NOT NULL,  -- changes up to this revision may be missing from the log
    logged   INTEGER NOT NULL   -- rows in the log
);
INSERT INTO state VALUES (1, 0, 0);
CREATE TABLE entries (
    key      TEXT PRIMARY KEY,
    value    BLOB NOT NULL,
    revision INTEGER NOT NULL,
    lease    INTEGER
) WITHOUT ROWID;
CREATE INDEX entries_by_lease ON entries (lease) WHERE lease IS NOT NULL;
CREATE TABLE leases (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice, so that an old lease cannot revive a new one
    ttl     REAL NOT NULL,
    boot    TEXT NOT NULL,
    expires REAL NOT NULL                       -- CLOCK_BOOTTIME
);
CREATE TABLE log (
    revision INTEGER NOT NULL,
    ordinal  INTEGER NOT NULL,
    key      TEXT NOT NULL,
    value    BLOB,                              -- NULL: the key was removed
    PRIMARY KEY (revision, ordinal)
) WITHOUT ROWID;
"""

# How long opening may take when another process is at it too, in seconds.
_OPENING = 5.0
# The WAL is cut back to this many bytes once it has been written into the file.
_WAL_KEPT = 4 << 20
_PRIMARY_CODE = 0xFF


class DatabaseFile:
    """One SQLite file of our schema, made if it is not there (0600, its directory 0700).

    A connection is used by one thread at a time and kept for the next: threads come and go (requests, watches), and a
    connection bound to a thread would stay open until somebody collects the thread.  Not to be used across a fork.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        # Threads of this process queue here; between processes SQLite sleeps and tries again, up to 100 ms at a time.
        self._writer = threading.Lock()
        self._create()
        with self.connection(_OPENING) as connection:
            self._prepare(connection)

    @contextmanager
    def connection(self, patience: float) -> Iterator[sqlite3.Connection]:
        """A connection for this thread alone, which waits ``patience`` seconds at most for another process.

        Raises Retry or Broken for whatever SQLite raises in the block.
        """
        with self._failures_named(patience):
            connection = self._take()
            try:
                connection.execute(f"PRAGMA busy_timeout = {max(1, int(patience * 1000))}")
                yield connection
            except BaseException as error:
                with suppress(sqlite3.Error):
                    connection.rollback()
                # After a failure of the file itself the connection may hold on to what made it fail.
                self._give_back(connection, fit=not isinstance(error, sqlite3.Error))
                raise
            self._give_back(connection, fit=True)

    @contextmanager
    def reading(self, connection: sqlite3.Connection) -> Iterator[None]:
        """All reads of the block see one state of the file; the writer is not held up."""
        connection.execute("BEGIN")
        yield
        connection.execute("COMMIT")

    @contextmanager
    def writing(self, patience: float) -> Iterator[sqlite3.Connection]:
        """A connection that holds the write lock; what it wrote is durable when the block has ended without error.

        Raises Retry if others hold the lock for longer than ``patience`` seconds.
        """
        ends_at = time.monotonic() + patience
        if not self._writer.acquire(timeout=patience):
            raise self._locked(patience)
        try:
            with self.connection(max(0.0, ends_at - time.monotonic())) as connection:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
        finally:
            self._writer.release()

    def close(self) -> None:
        """Close the connections; one that is in use now closes when it is given back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # -- opening ----------------------------------------------------------------------------------------------------

    def _create(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # mknod, because closing a descriptor of the file drops the locks that this process may have on it already
            # (fcntl(2), "Advisory record locking"); the -wal and -shm files take the mode of this one.
            with suppress(FileExistsError):
                os.mknod(self.path, stat.S_IFREG | 0o600)
        except OSError as error:
            if error.errno == ENOSPC:
                raise self._full() from error
            reason = f"{self.path.parent} is not a directory" if error.errno in {EEXIST, ENOTDIR} else error.strerror
            raise Broken(
                f"the store's file {self.path} cannot be made: {reason}; "
                f"mend that, or name another file (SPANLAN_STORE, SPANLAN_STATE_DIR)"
            ) from error
        # SQLite would open what it may only read, and fail at the first commit.
        if not self.path.is_file() or not os.access(self.path, os.R_OK | os.W_OK):
            raise self._unusable("no file that may be read and written")

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            if self._closed:
                raise Retry(f"the store {self.path} has been closed: spanlan is stopping")
            if self._idle:
                return self._idle.pop()
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=rw", uri=True, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT}")
        return connection

    def _give_back(self, connection: sqlite3.Connection, *, fit: bool) -> None:
        with self._lock:
            if fit and not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        self._check_whose(connection)
        self._use_wal(connection)
        if self._version(connection) == _SCHEMA_VERSION:
            return
        connection.execute("BEGIN IMMEDIATE")
        # Two processes may have come here together: the second finds the work of the first.
        if self._version(connection) == 0:
            for statement in _SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        connection.execute("COMMIT")
        self._check_whose(connection)

    def _check_whose(self, connection: sqlite3.Connection) -> None:
        with self.reading(connection):  # another process may be at it in this moment
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            version = self._version(connection)
        if tables and application != _APPLICATION_ID:
            raise Broken(
                f"{self.path} is a database of another program; name another file (SPANLAN_STORE, SPANLAN_STATE_DIR)"
            )
        if version > _SCHEMA_VERSION:
            raise Broken(
                f"{self.path} was written by a newer spanlan (schema {version}, this one knows {_SCHEMA_VERSION}): "
                f"upgrade spanlan on this host, or start with another file (SPANLAN_STORE, SPANLAN_STATE_DIR)"
            )

    @staticmethod
    def _version(connection: sqlite3.Connection) -> int:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        return int(version)

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        # The mode stays with the file.  Changing it needs the file alone, and SQLite does not wait for that by itself.
        ends_at = time.monotonic() + _OPENING
        while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & _PRIMARY_CODE != sqlite3.SQLITE_BUSY or time.monotonic() > ends_at:
                    raise
                time.sleep(0.01)

    # -- failures ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _failures_named(self, patience: float) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._named(error, patience) from error

    def _named(self, error: sqlite3.Error, patience: float) -> SpanlanError:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY_CODE
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            return self._locked(patience)
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and self._disk_is_full()):
            return self._full()
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            return Broken(
                f"the store's file {self.path} is damaged ({error}): stop spanlan, keep a copy of it, and put a backup "
                f"in its place, or what 'sqlite3 {self.path} .recover' saves"
            )
        if code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}:
            return self._unusable(str(error))
        if code == sqlite3.SQLITE_IOERR:
            return Broken(
                f"the disk failed under the store's file {self.path} ({error}): see dmesg, and restart spanlan when it "
                f"is mended"
            )
        return Broken(f"the store's file {self.path} gave an answer that spanlan did not expect: {error}")

    def _locked(self, patience: float) -> Retry:
        return Retry(
            f"the store's file {self.path} is locked by another process or request and did not come free within "
            f"{patience:.1f} s; try again ('fuser -v {self.path}' names the processes)"
        )

    def _unusable(self, reason: str) -> Broken:
        return Broken(
            f"the store's file {self.path} cannot be opened for writing ({reason}): it has to be a file on a writable "
            f"local disk, and belong to the user spanlan runs as"
        )

    def _full(self) -> Retry:
        return Retry(f"the disk that holds the store's file {self.path} is full: free some space on it, then try again")

    def _disk_is_full(self) -> bool:
        try:
            return os.statvfs(self.path.parent).f_bavail == 0
        except OSError:
            return False
