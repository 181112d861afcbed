"""HTTP over a Unix socket as dockerd speaks it: an empty Host, no Content-Type, a body that may be empty."""

import contextlib
import http.client
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACCEPT = "application/vnd.docker.plugins.v1.2+json"
HEADERS = {"Host": "", "User-Agent": "Go-http-client/1.1", "Accept": ACCEPT}


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def error(self) -> str | None:
        """What dockerd would take for an error; both halves of it must see the same."""
        body = self.body
        assert body.get("Err") == body.get("Error"), "NetworkDriver reads Err, IpamDriver reads Error: send both"
        return body.get("Err")


class Connection(http.client.HTTPConnection):
    """One connection, kept open between requests."""

    def __init__(self, path: Path, timeout: float = 20.0) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))

    def send_raw(self, path: str, raw: bytes, *, verb: str = "POST", headers: dict[str, str] | None = None) -> Reply:
        # Refused before all of it was sent, a request has its answer all the same, and Go reads it too.
        with contextlib.suppress(BrokenPipeError):
            self.request(verb, path, body=raw, headers=HEADERS if headers is None else headers)
        response = self.getresponse()
        return Reply(response.status, dict(response.getheaders()), response.read())

    def call(self, method: str, body: object = None) -> Reply:
        """Send what dockerd would send: Go's encoder ends a body with a newline."""
        raw = b"" if body is None else json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        return self.send_raw(f"/{method}", raw)


def call(path: Path, method: str, body: object = None, *, timeout: float = 20.0) -> Reply:
    """One request on a connection of its own."""
    connection = Connection(path, timeout)
    try:
        return connection.call(method, body)
    finally:
        connection.close()
