"""TLS: what a channel needs for it, and why it did not come about.

gRPC says of a failed handshake what its TLS library happens to say, and of a refused client certificate only that
"the socket closed".  Python's own TLS names the cause, so after a failed call we shake hands once ourselves and look.
"""

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

_SYSTEM_AUTHORITIES: Final = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Alpine
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora, RHEL
    Path("/etc/ssl/ca-bundle.pem"),  # SUSE
)
# How every HTTP/2 connection begins (RFC 9113 section 3.4), with an empty SETTINGS frame; the server answers with its
# own, a frame of type 4.
_HELLO: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_FRAME_HEADER: Final = 9
_SETTINGS: Final = 4


@dataclass(frozen=True, slots=True)
class Trust:
    """Whether TLS is spoken, and with what: authorities, own certificate and its key, all PEM.

    Without ``ca`` the system's authorities are trusted.
    """

    tls: bool = False
    ca: bytes | None = None
    cert: bytes | None = None
    key: bytes | None = None

    def credentials(self) -> grpc.ChannelCredentials | None:
        """For a channel; None: no TLS."""
        if not self.tls:
            return None
        ca = self.ca
        if ca is None:
            bundle = next((path for path in _SYSTEM_AUTHORITIES if path.exists()), None)
            ca = bundle.read_bytes() if bundle else None
        return grpc.ssl_channel_credentials(root_certificates=ca, private_key=self.key, certificate_chain=self.cert)

    def trouble(self, endpoint: str, seconds: float) -> str | None:
        """Why TLS with ``endpoint`` does not come about; None if it does, or if that is not what is wrong."""
        host, _, port = endpoint.rpartition(":")
        ends_at = time.monotonic() + seconds

        def connect() -> socket.socket:
            left = max(ends_at - time.monotonic(), 0.01)
            connection = socket.create_connection((host.strip("[]"), int(port)), timeout=left)
            connection.settimeout(left)
            return connection

        try:
            if not self.tls:
                return "the server expects TLS" if _speaks_tls(connect) else None
            return self._trouble_in_handshake(connect, host.strip("[]"))
        except (OSError, ValueError):
            return None

    def _trouble_in_handshake(self, connect: Callable[[], socket.socket], host: str) -> str | None:
        try:
            with connect() as plain, self._context().wrap_socket(plain, server_hostname=host) as secure:
                secure.sendall(_HELLO)
                secure.recv(_FRAME_HEADER)  # a client certificate is refused only after the handshake
        except ssl.SSLCertVerificationError as error:
            return f"the server's certificate is not trusted: {error.verify_message}"
        except ssl.SSLError as error:
            if _speaks_plainly(connect):
                return "the server does not speak TLS"
            return f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}"
        return None

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.ca.decode() if self.ca else None)
        context.set_alpn_protocols(["h2"])
        if self.cert and self.key:
            with _as_file(self.cert) as cert, _as_file(self.key) as key:
                context.load_cert_chain(cert, key)
        return context


def _speaks_plainly(connect: Callable[[], socket.socket]) -> bool:
    with connect() as plain:
        plain.sendall(_HELLO)
        answer = plain.recv(_FRAME_HEADER)
        return len(answer) == _FRAME_HEADER and answer[3] == _SETTINGS


def _speaks_tls(connect: Callable[[], socket.socket]) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is said over this connection: we only look who is there
    try:
        with connect() as plain, context.wrap_socket(plain):
            return True
    except ssl.SSLError:
        return False


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A file name for what must not reach a disk."""
    descriptor = os.memfd_create("pem")
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
