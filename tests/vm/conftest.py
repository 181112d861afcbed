"""The vm world: what lies in ``inside`` runs in a guest with Debian's kernel, in one boot.

``VM=off`` runs it on this machine's kernel instead.  (``VM=inside`` is what the guest's own pytest gets.)
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vm.remote import RemoteRun

INSIDE = Path(__file__).with_name("inside")
CHECKOUT = Path(__file__).parent.parent.parent
MODES = {"", "on", "off", "inside"}
LEFT_OUT = re.compile(
    r"inside/kernel/test_(?!(overlay|neighbours|traffic)\.py)|ten_thousand|keep_the_pace|without_the_capability"
)
"""What of the kernel world the guest is spared, because there it takes minutes.

It runs what differs most from kernel to kernel: the tables of a VXLAN device and its traffic.  VLAN links, ipvlan and
all that stands on them have tests of their own here.  ``VM_KERNEL=all`` runs the whole kernel world.
"""
_remote = pytest.StashKey[RemoteRun]()


def is_for_guests() -> bool:
    return os.environ.get("VM", "on") in {"", "on"}


def is_for_the_guest(item: pytest.Item) -> bool:
    return is_for_guests() and item.path.is_relative_to(INSIDE)


def pytest_configure() -> None:
    if os.environ.get("VM", "on") not in MODES:
        raise pytest.UsageError(f"VM={os.environ['VM']}: must be on or off")
    if is_for_guests():
        compile_for_the_guest()


def compile_for_the_guest() -> None:
    """Compile here what the guest would otherwise compile in each of its processes, where it takes long."""
    sys.dont_write_bytecode = False  # what pytest makes of the tests themselves
    folders = [CHECKOUT / name for name in ("plugin", "tests")]
    subprocess.run([sys.executable, "-m", "compileall", "-q", *folders], check=False, stdout=subprocess.DEVNULL)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    machinery = [item for item in items if item.path.name == "test_the_guest_itself.py"]
    left_out = machinery if os.environ.get("VM") == "off" else []
    if is_for_guests() and os.environ.get("VM_KERNEL") != "all":
        left_out = [item for item in items if is_for_the_guest(item) and LEFT_OUT.search(item.nodeid)]
    config.hook.pytest_deselected(items=left_out)
    # The machinery's tests come first: they have guests of their own, and one at a time is enough.
    rest = [item for item in items if item not in machinery]
    items[:] = [item for item in (*machinery, *rest) if item not in left_out]
    for item in items:
        if is_for_the_guest(item):
            item.add_marker(pytest.mark.timeout(0))  # the guest has its own bounds, and needs long


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Run a test for the guest by asking the guest, which is started for the first one and runs all of them."""
    if not is_for_the_guest(item):
        return None
    session = item.session
    if _remote not in session.stash:
        items = [item for item in session.items if is_for_the_guest(item)]
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        session.stash[_remote] = RemoteRun(session.config, items, lambda text: reporter.write_line(f"guest: {text}"))
    remote = session.stash[_remote]
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in remote.reports(item):
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[object]:
    """See the guest off, and fail if it ended otherwise than by running its tests."""
    try:
        result = yield
    except BaseException:  # Ctrl-C, or enough failures
        if _remote in session.stash:
            session.stash[_remote].abandon()
        raise
    if _remote in session.stash:
        trouble = session.stash[_remote].finish()
        if trouble:
            raise pytest.UsageError(trouble)
    return result
