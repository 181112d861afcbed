"""Reading and writing entries inside one transaction of the file.

The one place that knows the tables.  It neither opens nor ends transactions (``file``) and wakes nobody (``watch``).
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from spanlan.errors import Gone
from spanlan.store.base import Absent, Condition, Deleted, Entry, Snapshot
from spanlan.store.sqlite import clock

_LAST_CODE_POINT = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)

# The log is cut when it holds this many rows too many, not at every commit.
_SLACK = 1000


Change = Entry | Deleted


@dataclass(frozen=True, slots=True)
class Missed:
    """The log does not reach back as far as was asked."""


def get(connection: sqlite3.Connection, key: str) -> Entry | None:
    """The entry of a key."""
    row = connection.execute("SELECT key, value, revision FROM entries WHERE key = ?", (key,)).fetchone()
    return None if row is None else Entry(*row)


def snapshot(connection: sqlite3.Connection, prefix: str, *, start: str = "", limit: int = 0) -> Snapshot:
    """The entries under ``prefix`` (contract: ``Store.range``)."""
    rows = connection.execute(
        "SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? ORDER BY key LIMIT ?",
        (max(prefix, start), _end_of(prefix), limit or -1),
    )
    return Snapshot(entries=tuple(Entry(*row) for row in rows), revision=_state(connection)[0])


def changes_after(
    connection: sqlite3.Connection, prefix: str, revision: int
) -> tuple[tuple[Change, ...], int] | Missed:
    """What happened under ``prefix`` after ``revision``, and the revision that has been reached."""
    reached, trimmed, _ = _state(connection)
    if revision < trimmed:
        return Missed()
    rows = connection.execute(
        "SELECT key, value, revision FROM log WHERE revision > ? AND key >= ? AND key < ? ORDER BY revision, ordinal",
        (revision, prefix, _end_of(prefix)),
    )
    changes = (Deleted(key, at) if value is None else Entry(key, value, at) for key, value, at in rows)
    return tuple(changes), reached


def next_expiry(connection: sqlite3.Connection, boot: str) -> float | None:
    """When the next lease ends, by ``clock.now``; long ago for those of another boot."""
    (expires,) = connection.execute(
        "SELECT min(CASE WHEN boot = ? THEN expires ELSE 0.0 END) FROM leases", (boot,)
    ).fetchone()
    return None if expires is None else float(expires)


class WriteTransaction:
    """The writes of one transaction: all get one revision, and all are logged for the watches.

    Leases that have ended are swept first, so that no condition sees a key that ought to be away; that sweep has a
    revision of its own, because it happened before.
    """

    def __init__(self, connection: sqlite3.Connection, *, boot: str, history: int) -> None:
        self._connection = connection
        self._boot = boot
        self._history = history
        self._before, self._trimmed, self._logged = _state(connection)
        self.revision = self._before
        self._writing = 0
        self._end_leases(
            number
            for (number,) in connection.execute(
                "SELECT id FROM leases WHERE boot != ? OR expires <= ?", (boot, clock.now())
            ).fetchall()
        )
        self._writing = 0

    @property
    def wrote(self) -> bool:
        """Whether there is something for the watches."""
        return self.revision != self._before

    def finish(self) -> None:
        """Write down the revision and keep the log within its bounds.  The last act before the commit."""
        if not self.wrote:
            return
        if self._logged > self._history + _SLACK:
            self._trim()
        self._connection.execute(
            "UPDATE state SET revision = ?, trimmed = ?, logged = ?", (self.revision, self._trimmed, self._logged)
        )

    # -- entries ----------------------------------------------------------------------------------------------------

    def failed(self, conditions: Sequence[Condition]) -> Mapping[str, Entry | None] | None:
        """None if all conditions hold, otherwise the entries of the keys they name."""
        current = {condition.key: get(self._connection, condition.key) for condition in conditions}
        if all(_holds(condition, current[condition.key]) for condition in conditions):
            return None
        return current

    def put(self, key: str, value: bytes, lease: int | None) -> None:
        """Write an entry, bound to ``lease`` or to none.  Raises Gone if the lease has ended."""
        if lease is not None and not self._connection.execute("SELECT 1 FROM leases WHERE id = ?", (lease,)).fetchone():
            raise Gone(f"{key} cannot be written under a lease that has ended; take a new lease")
        self._log(key, value)
        self._connection.execute(
            "INSERT OR REPLACE INTO entries (key, value, revision, lease) VALUES (?, ?, ?, ?)",
            (key, value, self.revision, lease),
        )

    def delete(self, key: str) -> None:
        """Remove an entry, if it is there."""
        if self._connection.execute("DELETE FROM entries WHERE key = ?", (key,)).rowcount:
            self._log(key, None)

    def delete_prefix(self, prefix: str) -> None:
        """Remove every entry under ``prefix``."""
        bounds = (prefix, _end_of(prefix))
        keys = self._connection.execute("SELECT key FROM entries WHERE key >= ? AND key < ? ORDER BY key", bounds)
        for (key,) in keys.fetchall():
            self._log(key, None)
        self._connection.execute("DELETE FROM entries WHERE key >= ? AND key < ?", bounds)

    # -- leases -----------------------------------------------------------------------------------------------------

    def new_lease(self, ttl: float) -> int:
        """The number of a new lease."""
        cursor = self._connection.execute(
            "INSERT INTO leases (ttl, boot, expires) VALUES (?, ?, ?)", (ttl, self._boot, clock.now() + ttl)
        )
        if cursor.lastrowid is None:
            raise AssertionError("SQLite gave no row number for a row that it inserted")
        return cursor.lastrowid

    def renew_lease(self, number: int) -> bool:
        """Start the time of a lease anew; False if it has ended."""
        renewed = self._connection.execute("UPDATE leases SET expires = ? + ttl WHERE id = ?", (clock.now(), number))
        return bool(renewed.rowcount)

    def end_lease(self, number: int) -> None:
        """End a lease and remove its keys."""
        self._end_leases([number])

    def _end_leases(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            keys = self._connection.execute("SELECT key FROM entries WHERE lease = ? ORDER BY key", (number,))
            for (key,) in keys.fetchall():
                self.delete(key)
            self._connection.execute("DELETE FROM leases WHERE id = ?", (number,))

    # -- the log ----------------------------------------------------------------------------------------------------

    def _log(self, key: str, value: bytes | None) -> None:
        if not self._writing:
            self.revision += 1
        self._connection.execute(
            "INSERT INTO log (revision, ordinal, key, value) VALUES (?, ?, ?, ?)",
            (self.revision, self._writing, key, value),
        )
        self._writing += 1
        self._logged += 1

    def _trim(self) -> None:
        """Cut the log to its newest rows, whole revisions only.

        Bounded by number and not by age: a watch of a living process lags by milliseconds, and one that does not may
        as well have a snapshot.
        """
        row = self._connection.execute(
            "SELECT revision FROM log ORDER BY revision DESC, ordinal DESC LIMIT 1 OFFSET ?", (self._history,)
        ).fetchone()
        if row is None:
            return
        self._trimmed = int(row[0])
        self._logged -= self._connection.execute("DELETE FROM log WHERE revision <= ?", (self._trimmed,)).rowcount


def _state(connection: sqlite3.Connection) -> tuple[int, int, int]:
    revision, trimmed, logged = connection.execute("SELECT revision, trimmed, logged FROM state").fetchone()
    return revision, trimmed, logged


def _holds(condition: Condition, entry: Entry | None) -> bool:
    if isinstance(condition, Absent):
        return entry is None
    return entry is not None and entry.revision == condition.revision


def _end_of(prefix: str) -> str:
    """The first text behind all that start with ``prefix``, in the order of code points (which is that of UTF-8)."""
    stem = prefix.rstrip(chr(_LAST_CODE_POINT))
    if not stem:
        # Keys start with "/": nothing sorts behind this.
        return chr(_LAST_CODE_POINT)
    following = ord(stem[-1]) + 1
    if following in _SURROGATES:
        following = _SURROGATES.stop
    return stem[:-1] + chr(following)
