"""Fixtures of the kernel tests, wherever they run: in a namespace with an underlay."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from netns import NetworkNamespace

UNDERLAY = """
link add under0 type veth peer name wire0
addr add 10.9.0.1/24 dev under0
addr add fd09::1/64 dev under0 nodad
link set under0 up
link set wire0 up
"""


@pytest.fixture
def namespace() -> Iterator[NetworkNamespace]:
    """A fresh namespace in which the test itself runs, with an underlay ``under0`` (10.9.0.1, fd09::1, MTU 1500)."""
    with NetworkNamespace() as fresh, fresh.entered():
        fresh.command("ip", "-batch", "-", told=UNDERLAY)
        yield fresh


@pytest.fixture
def new_namespace() -> Iterator[Callable[[], NetworkNamespace]]:
    """Makes further namespaces; they end with the test."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(NetworkNamespace())
