"""A real server on a real Unix socket, with the fakes behind it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from protocol.fake_driver import FakeIpamDriver, FakeNetworkDriver
from spanlan.libnetwork.app import create_app
from spanlan.libnetwork.server import Server
from spanlan.libnetwork.workers import Workers


@dataclass
class Door:
    path: Path
    server: Server
    driver: Any
    ipam: Any
    seen: list[tuple[str, str]]
    workers: Workers

    def outcomes(self, method: str) -> list[str]:
        return [outcome for name, outcome in self.seen if name == method]


OpenDoor = Callable[..., Door]


@contextmanager
def opened(path: Path, *, driver: Any = None, size: int = 8, line: int = 8, limit: float = 8.0) -> Iterator[Door]:
    """A door at ``path`` that is closed at the end, whatever happened."""
    driver, ipam = driver or FakeNetworkDriver(), FakeIpamDriver()
    seen: list[tuple[str, str]] = []
    workers = Workers(size, line)
    app = create_app(
        driver,
        ipam,
        limit=limit,
        workers=workers,
        observe=lambda method, _seconds, outcome: seen.append((method, outcome)),
    )
    server = Server(app, path)
    server.start()
    try:
        yield Door(path, server, driver, ipam, seen, workers)
    finally:
        server.stop(1.0)
        workers.close()


@pytest.fixture
def open_door(tmp_path: Path) -> Iterator[OpenDoor]:
    with ExitStack() as stack:
        yield lambda **how: stack.enter_context(opened(tmp_path / "door.sock", **how))


@pytest.fixture
def door(open_door: OpenDoor) -> Door:
    return open_door()


class StuckDriver(FakeNetworkDriver):
    """Join does not end before it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Semaphore(0)
        self.let_go = threading.Event()

    def join(self, network_id: str, endpoint_id: str, sandbox: str) -> Any:
        self.entered.release()
        assert self.let_go.wait(60)
        return super().join(network_id, endpoint_id, sandbox)


@pytest.fixture
def stuck() -> Iterator[StuckDriver]:
    driver = StuckDriver()
    yield driver
    driver.let_go.set()
