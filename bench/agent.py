"""The outside of ``inside.py``: starts it on a host of the lab and speaks with it."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.figures import environment
from spanlan.lab.host import Host

_READY = 30.0  # seconds
_ARRIVES = 10.0


class Agent:
    """A program of ``inside.py`` on a host."""

    def __init__(self, host: Host, *arguments: str) -> None:
        settings = [f"{name}={value}" for name, value in environment().items()]
        command = ["env", *settings, sys.executable, "-m", "bench.inside", *arguments]
        self._what = f"bench.inside {arguments[0]} on {host.name}"
        self._process = host.popen(command, stdin=subprocess.PIPE, stderr=None)
        self.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def order(self, what: str) -> dict[str, Any]:
        """Say a line and read the answer to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return self.read()

    def read(self) -> dict[str, Any]:
        """The next line.  Raises RuntimeError when the program has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._what} has ended with status {self._process.wait(_READY)}")
        record: dict[str, Any] = json.loads(line)
        return record

    def close(self) -> None:
        """End the input, and with it the program."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_READY)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


class KernelWatch(Agent):
    """What came to and went from the tables of a host's kernel, and when (monotonic seconds)."""

    def __init__(self, host: Host) -> None:
        super().__init__(host, "watch")
        self._changed = threading.Condition()
        self._last: dict[str, tuple[bool, float]] = {}
        self._thread = threading.Thread(target=self._listen, name="kernel-watch", daemon=True)
        self._thread.start()

    def when(self, keys: tuple[str, ...], *, there: bool) -> float:
        """When the last of ``keys`` (addresses, MACs) came (``there``) or went; waits for it.

        Raises RuntimeError if that does not happen within ten seconds.
        """

        def so() -> bool:
            return all(key in self._last and self._last[key][0] is there for key in keys)

        with self._changed:
            if not self._changed.wait_for(so, _ARRIVES):
                raise RuntimeError(f"{' and '.join(keys)} did not {'come' if there else 'go'} within {_ARRIVES:g} s")
            return max(self._last[key][1] for key in keys)

    def close(self) -> None:
        """End it."""
        super().close()
        self._thread.join(_READY)

    def _listen(self) -> None:
        try:
            while True:
                seen = self.read()
                with self._changed:
                    self._last[seen["key"]] = (seen["there"], seen["at"])
                    self._changed.notify_all()
        except (RuntimeError, ValueError):  # its end
            return


def disk_commits(disk: Path) -> int:
    """How often a host's daemon has committed to its own records so far (its store counts them)."""
    import sqlite3  # noqa: PLC0415

    connection = sqlite3.connect(f"file:{disk / 'spanlan' / 'host.db'}?mode=ro", uri=True)
    try:
        return int(connection.execute("SELECT revision FROM state").fetchone()[0])
    finally:
        connection.close()
