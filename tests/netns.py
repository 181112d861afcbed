"""Throw-away network namespaces for tests.

A namespace lives as long as the descriptor that is held on it; nothing is mounted and nothing named, so nothing can be
left behind, whatever happens to the test.  Only the calling thread moves; threads and programs that it starts while it
is inside start there too.  (Python 3.11 has neither os.setns nor os.unshare, hence ctypes.)
"""

import ctypes
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)} (kernel tests need root, or CAP_SYS_ADMIN)")


def _here() -> int:
    return os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class NetworkNamespace:
    """A network namespace of its own, with the loopback interface up.  Costs a few milliseconds."""

    def __init__(self) -> None:
        home = _here()
        try:
            _call("unshare", _CLONE_NEWNET)
            self._handle = _here()
            _call("setns", home, _CLONE_NEWNET)
        finally:
            os.close(home)
        self.command("ip", "link", "set", "lo", "up")

    @property
    def handle(self) -> int:
        """A descriptor of the namespace (for pyroute2's ``net_ns_fd``)."""
        return self._handle

    @property
    def path(self) -> str:
        """A path by which other programs name the namespace while it is held (``ip link set … netns PATH``)."""
        return f"/proc/{os.getpid()}/fd/{self._handle}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is inside for the block."""
        home = _here()
        try:
            _call("setns", self._handle, _CLONE_NEWNET)
            try:
                yield
            finally:
                _call("setns", home, _CLONE_NEWNET)
        finally:
            os.close(home)

    def run(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call ``function`` inside."""
        with self.entered():
            return function(*arguments, **named)

    def command(self, *words: str, check: bool = True, told: str | None = None) -> str:
        """Run a program inside that is ``told`` something; its output.  Fails the test with the program's own words."""
        with self.entered():
            done = subprocess.run(words, input=told, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0 or not check, f"{' '.join(words)}: {done.stderr or done.stdout}"
        return done.stdout

    def json(self, *words: str) -> Any:
        """Run a program inside that prints JSON (``ip -j …``, ``bridge -j …``); what it printed."""
        return json.loads(self.command(*words) or "[]")

    def take(self, link: str, *, of: "NetworkNamespace") -> None:
        """Move a link of another namespace into this one."""
        of.command("ip", "link", "set", link, "netns", self.path)

    def close(self) -> None:
        """Let go of it: the kernel removes it with all that is in it."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
