"""Labs for tests: one that all tests share, and a factory for others.  A world's conftest.py imports what it uses.

A test that uses ``clean_lab`` gets the shared lab, and afterwards everything is repaired and cleared, and the test
fails if anything of spanlan stays.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.cleanliness import assert_nothing_left, heal
from spanlan.lab import Lab, removal
from spanlan.lab.commands import tail

_standing: list[Lab] = []
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def no_ruins() -> None:
    """Take down what test runs that were killed have left standing: their labs carry the PID of the run."""
    for name in removal.labs():
        prefix, _, rest = name.partition("-")
        pid = rest.partition("-")[0]
        if prefix == "test" and pid.isdecimal() and not Path("/proc", pid).exists():
            Lab(name).down()


@pytest.fixture(scope="session")
def raise_lab(no_ruins: None) -> Iterator[Callable[..., Lab]]:
    """Factory of labs that stand until the end of the session, unless the test takes them down itself."""
    made: list[Lab] = []

    def build(**options: Any) -> Lab:
        lab = Lab(f"test-{os.getpid()}-{next(_numbers)}", **options)
        made.append(lab)
        _standing.append(lab)
        lab.up()
        return lab

    yield build
    _take_down(made)


@pytest.fixture
def make_lab(no_ruins: None) -> Iterator[Callable[..., Lab]]:
    """Factory of labs for one test: ``make_lab(hosts=3, ipv6_underlay=True)``; they go with the test."""
    made: list[Lab] = []

    def build(*, up: bool = True, **options: Any) -> Lab:
        lab = Lab(f"test-{os.getpid()}-{next(_numbers)}", **options)
        made.append(lab)
        _standing.append(lab)
        if up:
            lab.up()
        return lab

    yield build
    _take_down(made)


def _take_down(made: list[Lab]) -> None:
    for lab in made:
        lab.down()
        _standing.remove(lab)


@pytest.fixture(scope="session")
def lab(raise_lab: Callable[..., Lab]) -> Lab:
    """The shared lab: two hosts with engines and daemons, and etcd."""
    return raise_lab(hosts=2)


@pytest.fixture
def clean_lab(lab: Lab) -> Iterator[Lab]:
    """The shared lab for one test, which must leave nothing of spanlan in it once its networks are removed."""
    yield lab
    heal(lab)
    lab.clear()
    assert_nothing_left(lab)


def _telling(log: str) -> list[str]:
    """The last lines of a log, without dockerd's small talk."""
    return [line for line in log.splitlines() if "level=info" not in line][-40:]


@pytest.hookimpl(wrapper=True)
def lab_logs(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show the end of every log of the labs that stand when something fails: a ``pytest_runtest_makereport``."""
    report = yield
    if report.failed:
        for standing in _standing:
            for log in sorted(standing.names.run_dir.rglob("*.log")):
                title = f"{standing.name}: {log.relative_to(standing.names.run_dir)}"
                report.sections.append((title, "\n".join(_telling(tail(log, 400)))))
    return report
