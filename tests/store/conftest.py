"""Servers for the tests of the store."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.etcd_server import EtcdCluster, EtcdServer


@pytest.fixture(scope="session")
def etcd_directory() -> Iterator[Path]:
    """Where servers keep their data: in memory if possible, so that tests wait for no disk."""
    memory = Path("/dev/shm")  # noqa: S108 - made safe by mkdtemp
    directory = Path(tempfile.mkdtemp(prefix="spanlan-etcd-", dir=memory if os.access(memory, os.W_OK) else None))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def etcd(etcd_directory: Path) -> Iterator[EtcdServer]:
    """A running etcd that nobody disturbs; tests share it, each under a root of its own."""
    with EtcdServer(etcd_directory / "shared") as server:
        yield server.start()


@pytest.fixture
def fragile(etcd_directory: Path) -> Iterator[EtcdServer]:
    """A running etcd for one test alone, which may do to it what it likes."""
    server = EtcdServer(Path(tempfile.mkdtemp(dir=etcd_directory)))
    try:
        yield server.start()
    finally:
        server.kill()


@pytest.fixture
def cluster(etcd_directory: Path) -> Iterator[EtcdCluster]:
    """Three running members for one test alone."""
    members = EtcdCluster(Path(tempfile.mkdtemp(dir=etcd_directory)))
    try:
        yield members.start()
    finally:
        members.kill()


@pytest.fixture
def root() -> str:
    """A root in the shared etcd that no other test uses."""
    return f"/test-{uuid.uuid4()}"
