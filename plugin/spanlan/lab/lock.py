"""One command at a time works on a lab.

The lock is the kernel's (flock(2)), so a command that is killed lets go of it; its file goes with its holder.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from spanlan.errors import Broken, Retry
from spanlan.lab import commands


@contextlib.contextmanager
def exclusive(path: Path, *, seconds: float) -> Iterator[None]:
    """Hold the lock; raises Retry when somebody else keeps it for longer than ``seconds``."""
    try:
        descriptor = commands.until(lambda: _try(path), seconds=seconds, what="getting the lock")
    except Broken as error:
        raise Retry(
            f"another `spanlan lab` command is at work ({path} is locked); try again when it is done"
        ) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        with contextlib.suppress(OSError):  # not empty: there are other labs, or waiters
            path.parent.rmdir()


def is_held(path: Path) -> bool:
    """Whether some process holds the lock now."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _try(path: Path) -> int | None:
    """A locked descriptor of the file that is at ``path`` now; None if it is not to be had."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):  # BlockingIOError, or the folder went away with the last lab
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The former holder may have removed the file between our open and our lock.
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        os.close(descriptor)
    return None
