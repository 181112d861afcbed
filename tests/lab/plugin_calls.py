"""Calls of a daemon as its engine makes them, for what no ``docker`` command does often or fast enough."""

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any, Self

from spanlan.lab.host import Host

SECONDS = 60.0


class Engine:
    """One connection to a host's daemon, in the engine's place."""

    def __init__(self, host: Host) -> None:
        self._connection = http.client.HTTPConnection("localhost", timeout=SECONDS)
        self._connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connection.sock.settimeout(SECONDS)
        self._connection.sock.connect(str(host.plugin_socket))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def call(self, method: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """What the daemon answers; fails on a refusal."""
        self._connection.request("POST", f"/{method}", json.dumps(request))
        answer = self._connection.getresponse()
        body: dict[str, Any] = json.loads(answer.read() or "{}")
        assert answer.status == http.HTTPStatus.OK, f"{method}: {body}"
        return body
