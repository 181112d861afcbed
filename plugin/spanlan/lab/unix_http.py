"""One HTTP request over a Unix socket: enough to ask an engine or a daemon whether it answers."""

import http.client
import socket
from pathlib import Path


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def status(path: Path, method: str, url: str, *, timeout: float = 5.0) -> int | None:
    """HTTP status of the answer; None if nobody answers there."""
    connection = _Connection(path, timeout)
    try:
        connection.request(method, url)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
