"""Certificates for tests: an authority, server and client certificates, made with the openssl command."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority of our own, kept in ``directory``."""

    def __init__(self, directory: Path, name: str = "spanlan test authority") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.pair = KeyPair(directory / "ca.crt", directory / "ca.key")
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
            *("-subj", f"/CN={name}", "-keyout", str(self.pair.key), "-out", str(self.pair.certificate)),
        )

    @property
    def certificate(self) -> Path:
        """What a client has to trust."""
        return self.pair.certificate

    def issue(self, name: str, *, usage: str = "serverAuth,clientAuth", addresses: str = "IP:127.0.0.1") -> KeyPair:
        """A certificate for ``name`` (its common name), valid for ``addresses`` (openssl's subjectAltName syntax)."""
        pair = KeyPair(self.directory / f"{name}.crt", self.directory / f"{name}.key")
        request, extensions = self.directory / f"{name}.csr", self.directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={addresses}\nextendedKeyUsage={usage}\n")
        _openssl(
            *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", str(pair.key), "-out", str(request)),
        )
        _openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.pair.certificate), "-CAkey", str(self.pair.key)),
            *("-CAcreateserial", "-days", "2", "-extfile", str(extensions), "-out", str(pair.certificate)),
        )
        return pair


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)
