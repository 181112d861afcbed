"""Running other programs: argument lists, a bound on every wait, and errors that carry what the program said."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from spanlan.errors import Broken
from spanlan.lab.names import MARK

T = TypeVar("T")

PATIENCE = "PATIENCE_OF_SPANLAN_LAB"
"""Environment variable with the factor by which this machine is slower than a real one (an emulated one is).

Every bound on waiting is stretched by it, and things are started one after the other.
"""

_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_TOLD_LINES = 15


def search_path() -> str:
    """``PATH`` with the folders of system programs in it, which a user's own often lacks."""
    given = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    return os.pathsep.join([*given, *(folder for folder in _SYSTEM_FOLDERS if folder not in given)])


def patience(seconds: float) -> float:
    """A bound on waiting as it holds on this machine; see :data:`PATIENCE`."""
    return seconds * slowness()


def slowness() -> float:
    """1, or what :data:`PATIENCE` says."""
    return float(os.environ.get(PATIENCE) or 1)


def environment(mark: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment of a lab's process: little, so that the caller's own (``DOCKER_HOST``, ``ETCD_…``) stays outside."""
    plain = {"PATH": search_path(), "HOME": "/root", "LANG": "C.UTF-8", MARK: mark}
    return plain | {"TERM": os.environ.get("TERM", "dumb")} | dict(more or {})


def run(  # noqa: PLR0913 - the parameters of subprocess.run that we use
    command: Sequence[str | Path],
    *,
    timeout: float = 30.0,
    check: bool = True,
    input: str | None = None,  # noqa: A002 - the name that subprocess has for it
    env: Mapping[str, str] | None = None,
    what: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run to the end and return what it said.

    ``what`` names the command in errors.  Raises Broken if it cannot be started, does not end within ``timeout``
    seconds, or (with ``check``) fails.
    """
    words = [str(word) for word in command]
    named = what or " ".join(words)
    timeout = patience(timeout)
    try:
        result = subprocess.run(
            words,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            input=input or "",
            env=dict(env) if env is not None else environment_of_caller(),
        )
    except subprocess.TimeoutExpired as error:
        raise Broken(f"`{named}` did not end within {timeout:g} s") from error
    except OSError as error:
        raise Broken(f"`{named}` cannot be started: {error}") from error
    if check and result.returncode != 0:
        raise Broken(f"`{named}` failed with status {result.returncode}: {(result.stderr or result.stdout).strip()}")
    return result


def popen(
    command: Sequence[str | Path], *, env: Mapping[str, str], options: Mapping[str, Any]
) -> "subprocess.Popen[str]":
    """Start and return at once.  ``options`` (of subprocess.Popen) go over pipes for both outputs and no input."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    settings: dict[str, Any] = {**pipes, "env": env, **options}
    process: subprocess.Popen[str] = subprocess.Popen([str(word) for word in command], text=True, **settings)
    return process


def environment_of_caller() -> dict[str, str]:
    """Our own environment, with system programs on ``PATH``."""
    return os.environ | {"PATH": search_path()}


def until(condition: Callable[[], T | None], *, seconds: float, what: str) -> T:
    """Ask until the answer is true, and return it; raises Broken when it was not within ``seconds``.

    ``what`` completes the sentence "… did not happen within …".
    """
    seconds = patience(seconds)
    ends_at = time.monotonic() + seconds
    pause, longest = 0.005, patience(0.1)
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= ends_at:
            raise Broken(f"{what} did not happen within {seconds:g} s")
        time.sleep(pause)
        pause = min(pause * 1.5, longest)


def tail(log: Path, lines: int = _TOLD_LINES) -> str:
    """The last lines of a log, or a word on why there are none."""
    try:
        text = log.read_text(errors="replace")
    except OSError as error:
        return f"(no log: {error})"
    return "\n".join(text.splitlines()[-lines:]) or f"({log} is empty)"
