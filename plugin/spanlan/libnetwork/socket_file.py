"""The file of a listening Unix socket: claimed without harm to a living daemon, and removed only if it is still ours.

A file that is left over costs dockerd 15 s of retries per call (protocol, gotcha G23); a file that a second daemon took
over leaves the first one deaf without a word.  So claiming asks whoever is behind an existing file, under a lock on
the directory, and giving back looks whether the file is the one that was made.
"""

import fcntl
import logging
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spanlan.errors import Broken, Refuse

_log = logging.getLogger(__name__)

_BACKLOG = 1024
_MODE = 0o600
_LOCK_LIMIT = 5.0
_PROBE_LIMIT = 1.0
_FIRST_INHERITED = 3  # sd_listen_fds(3)


class SocketFile:
    """A listening socket and the file by which it is reached."""

    def __init__(self, path: Path, listener: socket.socket, identity: tuple[int, int] | None) -> None:
        self.path = path
        self.listener = listener
        # Device and inode of the file that we made; None when somebody else made it and keeps it (systemd).
        self._identity = identity

    def remove(self) -> None:
        """Remove the file, unless it is not ours or has become another's.  The listener must still be open.

        As long as it is, the kernel keeps the inode, so that no other file can have its number.
        """
        if self._identity is None:
            return
        with _directory_locked(self.path.parent):
            if _identity(self.path) == self._identity:
                self.path.unlink()
            else:
                _log.warning("%s is not our socket any more and is left alone", self.path)
        self._identity = None


def claim(path: Path) -> SocketFile:
    """Listen on ``path``: on the socket that systemd hands over, or on a new one of mode 0600.

    Raises Refuse when a living process answers there, when something else than a socket is there, or when the path is
    too long for a socket; Broken when the directory cannot be made or written.
    """
    inherited = _inherited(path)
    if inherited is not None:
        return SocketFile(path, inherited, None)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _directory_locked(path.parent):
            _clear(path)
            listener = _bind(path)
            return SocketFile(path, listener, _identity(path))
    except OSError as error:
        raise Broken(f"cannot listen on {path}: {error.strerror or error}; check SPANLAN_SOCKET") from error


def _bind(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # The file takes the socket's mode when it is made (unix_bind_bsd in net/unix/af_unix.c), so that there is no
        # moment in which others may connect, and no umask to change under the feet of other threads.
        os.fchmod(listener.fileno(), _MODE)
        listener.bind(os.fspath(path))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno is None and "too long" in str(error):
            raise Refuse(f"the socket's path {path} is too long: Unix sockets take at most 107 bytes") from None
        raise
    return listener


def _clear(path: Path) -> None:
    """Remove a socket file that nobody listens on."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Refuse(f"{path} exists and is not a socket; remove it, or choose another SPANLAN_SOCKET")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_LIMIT)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            _log.info("removing %s, left behind by a process that is gone", path)
            path.unlink()
            return
        except TimeoutError:
            pass  # somebody listens, and is only too busy to accept
    raise Refuse(f"another process answers on {path}; stop it first, or choose another SPANLAN_SOCKET")


@contextmanager
def _directory_locked(directory: Path) -> Iterator[None]:
    """Keep other daemons from claiming or removing a socket in the directory at the same time."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        ends_at = time.monotonic() + _LOCK_LIMIT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= ends_at:
                    raise Broken(f"{directory} has been locked by another process for {_LOCK_LIMIT:g} s") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _inherited(path: Path) -> socket.socket | None:
    """The listening socket for ``path`` that systemd opened before we began (sd_listen_fds(3)), if there is one.

    It lets dockerd's first calls wait for us instead of failing, across our restarts too.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    # Children must not take them for theirs.
    os.environ.pop("LISTEN_PID")
    os.environ.pop("LISTEN_FDNAMES", None)
    count = os.environ.pop("LISTEN_FDS", "0")
    for descriptor in range(_FIRST_INHERITED, _FIRST_INHERITED + (int(count) if count.isdecimal() else 0)):
        os.set_inheritable(descriptor, False)
        candidate = socket.socket(fileno=descriptor)
        if candidate.family == socket.AF_UNIX and candidate.getsockname() == os.fspath(path):
            return candidate
        candidate.detach()
    _log.warning("systemd handed over %s sockets, none of which is %s", count, path)
    return None
