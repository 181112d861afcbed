"""The world's own machinery: nothing that goes wrong in a guest looks like a success, or goes on for ever.

What QEMU has no part in is shown with a stand-in that runs the guest's pytest on this machine.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from spanlan.lab.commands import until
from vm import remote
from vm.guest import LEASH, PREFIX, Guest, GuestError
from vm.remote import RemoteRun

CHECKOUT = Path(__file__).parent.parent.parent
OWNER = """
import sys, time
from vm.guest import Guest
with Guest(["sleep", "600"], {}) as guest:
    print(guest.folder, *(process.pid for process in guest.processes), flush=True)
    time.sleep(600)
"""


class StandIn(Guest):
    """A guest without a machine: its command runs here, and finds the shared folder where that really is."""

    def _power_on(self) -> None:
        self.give("up", "0")
        words = [word.replace("/out/", f"{self.out}/") for word in self._command]
        settings = {name: value.replace("/out/", f"{self.out}/") for name, value in self._environment.items()}
        script = 'cd "$0" && { "$@" >output 2>&1; echo $? >status; }'
        self._start(
            "sh.log", ["sh", "-c", script, self.out, *LEASH, "env", *settings_words(settings), *in_checkout(words)]
        )


def settings_words(settings: dict[str, str]) -> list[str]:
    here = os.pathsep.join(str(CHECKOUT / folder) for folder in ("tests", "plugin"))
    return [f"{name}={value}" for name, value in {**settings, "PYTHONPATH": here}.items()]


def in_checkout(words: list[str]) -> list[str]:
    return ["sh", "-c", 'cd "$0" && exec "$@"', str(CHECKOUT), *words]


Ask = Callable[..., list[list[pytest.TestReport]]]


@pytest.fixture
def ask(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Have the stand-in run tests of ``samples``; the reports of each."""
    monkeypatch.setattr(remote, "Guest", StandIn)
    runs = []

    def run(*names: str) -> list[list[pytest.TestReport]]:
        items = [sample(f"test_that_{name}") for name in names]
        runs.append(RemoteRun(request.config, items, lambda _: None))
        return [runs[-1].reports(item) for item in items]

    yield run
    for each in runs:
        each.abandon()


def sample(name: str) -> pytest.Item:
    file = "tests/vm/samples.py"
    return SimpleNamespace(nodeid=f"{file}::{name}", location=(file, 1, name), keywords={name: 1})  # type: ignore[return-value]


def outcomes(reports: list[pytest.TestReport]) -> list[tuple[str, str]]:
    return [(report.when, report.outcome) for report in reports]


def test_what_passes_and_what_fails_inside_does_so_outside_with_the_same_words(ask: Ask) -> None:
    passed, failed = ask("passes", "fails")
    assert outcomes(passed) == [("setup", "passed"), ("call", "passed"), ("teardown", "passed")]
    assert outcomes(failed) == [("setup", "passed"), ("call", "failed"), ("teardown", "passed")]
    assert "the words of the failure" in failed[1].longreprtext
    assert "the kernel's last words" in dict(failed[1].sections)


def test_tests_of_a_guest_that_is_lost_fail_and_the_first_one_tells_why(ask: Ask) -> None:
    passed, first, second = ask("passes", "takes_the_guest_with_it", "fails")
    assert outcomes(passed)[-1] == ("teardown", "passed")
    assert outcomes(first) == outcomes(second) == [("call", "failed")]
    assert "ended before it came to this test" in first[0].longreprtext
    assert "---- output, its end:" in first[0].longreprtext
    assert "see the first one" in second[0].longreprtext


def test_a_guest_that_is_silent_for_too_long_is_given_up(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "SILENCE_SECONDS", 4.0)
    (hung,) = ask("hangs")
    assert outcomes(hung) == [("call", "failed")]
    assert "nothing was heard from the guest for 4 s" in hung[0].longreprtext


def test_a_kernel_that_panics_is_an_error_with_its_console() -> None:
    with Guest(["sh", "-c", "echo before; echo c > /proc/sysrq-trigger; sleep 60"], {}) as guest:
        with pytest.raises(GuestError, match="went off without an exit status") as caught:
            guest.wait(seconds=120)
        assert "Kernel panic" in str(caught.value)
        assert "before" in str(caught.value)
        folder = guest.folder
    assert not folder.exists()


def test_a_guest_that_takes_too_long_is_switched_off() -> None:
    with Guest(["sleep", "600"], {}) as guest:
        with pytest.raises(GuestError, match="still running after 1 s"):
            guest.wait(seconds=1)
        assert guest.running
    assert not guest.running


def test_nothing_runs_on_when_the_owner_of_a_guest_is_killed_and_the_next_one_tidies_up() -> None:
    settings = {**os.environ, "PYTHONPATH": f"{CHECKOUT / 'tests'}:{CHECKOUT / 'plugin'}"}
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, env=settings) as owner:
        assert owner.stdout is not None
        folder, *pids = owner.stdout.readline().split()
        owner.send_signal(signal.SIGKILL)
    assert len(pids) == 3
    until(lambda: not any(Path("/proc", pid).exists() for pid in pids), seconds=10, what="the end of the guest")
    assert Path(folder).name.startswith(PREFIX)
    Guest([], {}).remove()
    assert not Path(folder).exists()
