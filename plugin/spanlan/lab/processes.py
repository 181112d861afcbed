"""Processes of a lab: known by a mark in their environment, never by their name.

A process counts as a lab's only if it carries the mark *and* lives in another network namespace than we do, so that a
stray variable in somebody's shell cannot get that shell killed.  Signals go through a pidfd (pidfd_open(2)) that is
opened before the mark is read: a PID that was used again in between is not hit.
"""

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

from spanlan.errors import Broken, Gone
from spanlan.lab import commands
from spanlan.lab.names import MARK


def mark_of(pid: int) -> str | None:
    """The mark (``NAME/ROLE``) of a living process of some lab; None for any other process."""
    start = f"{MARK}=".encode()
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        if start not in environment or _network_namespace(str(pid)) == _network_namespace("self"):
            return None
    except OSError:
        return None
    return next((line[len(start) :].decode() for line in environment.split(b"\0") if line.startswith(start)), None)


def marked(lab: str | None = None) -> Iterator[tuple[int, str]]:
    """All living processes of one lab (or of all labs), as (PID, mark)."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            mark = mark_of(int(folder.name))
            if mark is not None and (lab is None or mark.startswith(f"{lab}/")):
                yield int(folder.name), mark


def find(mark: str) -> int | None:
    """PID of the process that bears exactly this mark."""
    return next((pid for pid, found in marked() if found == mark), None)


@contextlib.contextmanager
def held(pid: int, mark: str) -> Iterator[int]:
    """A pidfd of the process ``pid``, sure to be the one that bears ``mark``; raises Gone if there is none."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError as error:
        raise Gone(f"{mark} (PID {pid}) is not running") from error
    try:
        if mark_of(pid) != mark:
            raise Gone(f"{mark} is not running: PID {pid} is another process now")
        yield descriptor
    finally:
        os.close(descriptor)


def send(pid: int, mark: str, number: signal.Signals) -> None:
    """Send a signal; raises Gone if the process is not there."""
    with held(pid, mark) as descriptor:
        _send(descriptor, number)


def end(pid: int, mark: str, number: signal.Signals = signal.SIGKILL, *, seconds: float = 20.0) -> None:
    """Send a signal and wait until the process has ended; one that is gone already is fine.

    For the first process of a host this means that every process in the host has ended (pid_namespaces(7)).
    Raises Broken if it still runs after ``seconds``.
    """
    with contextlib.suppress(Gone), held(pid, mark) as descriptor:
        _send(descriptor, number)
        seconds = commands.patience(seconds)
        if not _ended(descriptor, seconds):
            raise Broken(f"{mark} (PID {pid}) did not end within {seconds:g} s of {number.name}")


def _send(descriptor: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, number)


def _ended(descriptor: int, seconds: float) -> bool:
    """A pidfd turns readable when its process has ended."""
    watcher = select.poll()
    watcher.register(descriptor, select.POLLIN)
    return bool(watcher.poll(seconds * 1000))


def _network_namespace(pid: str) -> int:
    return Path(f"/proc/{pid}/ns/net").stat().st_ino
