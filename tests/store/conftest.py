"""Servers for the tests of the store."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.etcd_server import EtcdServer


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
    server = EtcdServer(etcd_directory / "shared").start()
    yield server
    server.stop()
