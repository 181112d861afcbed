"""The store in one SQLite file: the embedded default of a single host, and every host's own records.

It needs nothing installed and no server, and several processes of one host may use it at once (the daemon, and the
command line beside it).  Commits are durable (WAL, ``synchronous=FULL``): an address that was handed out is not handed
out again after a power cut.  The file must be on a local disk: SQLite's WAL does not work over NFS.

``file`` opens the file and names its failures, ``transaction`` reads and writes, ``watch`` tells of changes, ``clock``
says when a lease ends, and ``store`` puts them together under the contract of :mod:`spanlan.store.base`.
"""

from spanlan.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
