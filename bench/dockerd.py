"""dockerd's part of the conversation: its requests, word for word, over one connection that stays open.

The bodies are those of recorded conversations (tests/protocol/conversations.jsonl).
"""

import json
import socket
import time
from pathlib import Path
from typing import Any, NamedTuple

ADDRESS_SPACE = "spanlan-local"
_NO_PORTS: dict[str, list[object]] = {"com.docker.network.endpoint.exposedports": [], "com.docker.network.portmap": []}
_LONGEST_ANSWER = 15.0  # seconds; the daemon answers within 8


class Answer(NamedTuple):
    """What came back, how long it took in seconds, and when it was there (monotonic)."""

    body: dict[str, Any]
    seconds: float
    at: float


class PluginSocket:
    """A connection to a daemon's socket, kept open as dockerd keeps it."""

    def __init__(self, path: Path) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(_LONGEST_ANSWER)
        self._connection.connect(str(path))

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def call(self, method: str, body: dict[str, Any] | None = None) -> Answer:
        """Ask, and read the whole answer.  Raises RuntimeError if it is not success."""
        content = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        head = (
            f"POST /{method} HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\n"
            f"Content-Length: {len(content)}\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n\r\n"
        )
        request = head.encode() + content
        begun_at = time.monotonic()
        self._connection.sendall(request)
        status, answer = self._read()
        at = time.monotonic()
        if status != 200:
            raise RuntimeError(f"{method} {body} was answered with {status}: {answer!r}")
        return Answer(json.loads(answer), at - begun_at, at)

    def _read(self) -> tuple[int, bytes]:
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more()
        head, _, content = received.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(content) < int(fields["content-length"]):
            content += self._more()
        return int(status_line.split(" ")[1]), content

    def _more(self) -> bytes:
        part = self._connection.recv(65536)
        if not part:
            raise ConnectionError("the daemon closed the connection")
        return part


def request_pool(subnet: str) -> dict[str, Any]:
    """``docker network create --ipam-driver spanlan --subnet …``, first request."""
    return {"AddressSpace": ADDRESS_SPACE, "Pool": subnet, "SubPool": "", "Options": {}, "V6": False}


def request_gateway(pool_id: str) -> dict[str, Any]:
    """RequestAddress for the network's gateway."""
    return {
        "PoolID": pool_id,
        "Address": "",
        "Options": {"RequestAddressType": "com.docker.network.gateway"},
    }


def create_network(network_id: str, segment: str, subnet: str, gateway: str) -> dict[str, Any]:
    """``docker network create -d spanlan -o segment=…``."""
    return {
        "NetworkID": network_id,
        "Options": {
            "com.docker.network.enable_ipv6": False,
            "com.docker.network.generic": {"segment": segment},
        },
        "IPv4Data": [{"AddressSpace": ADDRESS_SPACE, "Gateway": gateway, "Pool": subnet}],
        "IPv6Data": [],
    }


def request_address(pool_id: str) -> dict[str, Any]:
    """RequestAddress for a container, any that is free."""
    return {"PoolID": pool_id, "Address": "", "Options": {}}


def create_endpoint(network_id: str, endpoint_id: str, address: str) -> dict[str, Any]:
    """``docker run --network …``."""
    return {
        "NetworkID": network_id,
        "EndpointID": endpoint_id,
        "Interface": {"Address": address, "AddressIPv6": "", "MacAddress": ""},
        "Options": _NO_PORTS,
    }


def join(network_id: str, endpoint_id: str) -> dict[str, Any]:
    """The container's sandbox is there."""
    return {
        "NetworkID": network_id,
        "EndpointID": endpoint_id,
        "SandboxKey": f"/var/run/docker/netns/{endpoint_id[:12]}",
        "Options": _NO_PORTS,
    }


def of_endpoint(network_id: str, endpoint_id: str) -> dict[str, Any]:
    """Leave and DeleteEndpoint."""
    return {"NetworkID": network_id, "EndpointID": endpoint_id}


def of_network(network_id: str) -> dict[str, Any]:
    """DeleteNetwork."""
    return {"NetworkID": network_id}


def release_address(pool_id: str, interface: str) -> dict[str, Any]:
    """ReleaseAddress, of an address in CIDR notation."""
    return {"PoolID": pool_id, "Address": interface.partition("/")[0]}


def release_pool(pool_id: str) -> dict[str, Any]:
    """ReleasePool."""
    return {"PoolID": pool_id}
