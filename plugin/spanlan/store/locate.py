"""From the address of a store, as people write it, to the store.

The one place that knows which implementations there are.  Addresses:

    sqlite:///var/lib/spanlan/spanlan.db          a file of this host
    etcd://h1:2379,[fd00::2]:2379/prefix          etcd; port 2379 and prefix /spanlan may be left out
    etcds://h1,h2,h3                              the same over TLS

No address holds a password: it would show in the process list, in logs and in ``docker plugin inspect``.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from typing import Final

from spanlan.errors import Broken, Refuse
from spanlan.store.base import Store
from spanlan.store.sqlite import SqliteStore

DEFAULT_PORT: Final = 2379
DEFAULT_PREFIX: Final = "/spanlan"
# The layout of the keys (spanlan.store.keys); a daemon that writes them otherwise writes them elsewhere.
LAYOUT: Final = "/v1"

_KINDS = "sqlite:///PATH, etcd://HOST:PORT,…/PREFIX, or etcds://HOST:PORT,…/PREFIX for TLS"
_PORTS = range(1, 65536)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """How to prove to etcd who we are, and to know etcd: names of files, never what is in them.

    ``ca_file``: the authority of the servers; without it the system's are trusted.  ``cert_file`` and ``key_file``: the
    client's certificate.  All three are PEM and for ``etcds://``.  ``password_file``: its first line is the password of
    ``user``.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    user: str | None = None
    password_file: Path | None = None


@dataclass(frozen=True, slots=True)
class EtcdAddress:
    """An address of the kind ``etcd://`` or ``etcds://``: ``HOST:PORT`` of the members, and where our keys stand."""

    endpoints: tuple[str, ...]
    root: str
    tls: bool


def open_store(url: str, *, credentials: Credentials) -> Store:
    """Open the store at ``url``.

    Raises Refuse for an address or credentials that make no sense, Broken for a file that cannot be read, and what the
    store raises on opening: SQLite opens its file here, etcd is first spoken to when it is first asked.
    """
    kind, separator, rest = url.partition("://")
    if separator and kind == "sqlite":
        return SqliteStore(_sqlite_path(url, rest))
    if separator and kind in {"etcd", "etcds"}:
        return _open_etcd(etcd_address(url), credentials)
    raise Refuse(f"SPANLAN_STORE={_shown(url)}: spanlan knows no such store; write {_KINDS}")


def etcd_address(url: str) -> EtcdAddress:
    """Parse an ``etcd://`` or ``etcds://`` address.  Raises Refuse that names the part at fault and the cure."""
    kind, _, rest = url.partition("://")
    servers, _, path = rest.partition("/")
    if "@" in servers:
        raise Refuse(
            f"SPANLAN_STORE={_shown(url)}: an address holds no user and password; "
            "set SPANLAN_ETCD_USER and SPANLAN_ETCD_PASSWORD_FILE"
        )
    if re.search(r"[?#\s]", rest):
        raise Refuse(f"SPANLAN_STORE={url}: blanks, '?' and '#' have no meaning in it; write {_KINDS}")
    endpoints = tuple(dict.fromkeys(_endpoint(url, server) for server in servers.split(",")))
    prefix = "/" + path.strip("/") if path.strip("/") else DEFAULT_PREFIX
    return EtcdAddress(endpoints=endpoints, root=prefix + LAYOUT, tls=kind == "etcds")


def _sqlite_path(url: str, path: str) -> Path:
    if not path.startswith("/") or path.endswith("/") or "\0" in path:
        raise Refuse(
            f"SPANLAN_STORE={url}: behind sqlite:// stands the absolute path of a file, as in "
            "sqlite:///var/lib/spanlan/spanlan.db"
        )
    return Path(path)


def _endpoint(url: str, server: str) -> str:
    found = re.fullmatch(r"(?:\[(?P<six>[^\[\]]+)\]|(?P<host>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?", server)
    if found is None:
        cure = "put an IPv6 address in brackets" if server.count(":") > 1 else "write HOST or HOST:PORT"
        raise Refuse(f"SPANLAN_STORE={url}: '{server}' names no etcd server; {cure}, with commas in between")
    port = int(found["port"] or DEFAULT_PORT)
    if port not in _PORTS:
        raise Refuse(f"SPANLAN_STORE={url}: the port of '{server}' must be a number from 1 to 65535")
    if found["six"] is None:
        return f"{found['host']}:{port}"
    try:
        address = IPv6Address(found["six"])
    except ValueError:
        raise Refuse(
            f"SPANLAN_STORE={url}: '{found['six']}' is no IPv6 address; only those stand in brackets"
        ) from None
    return f"[{address}]:{port}"


def _open_etcd(address: EtcdAddress, credentials: Credentials) -> Store:
    _check(address, credentials)
    # Here, because gRPC takes a tenth of a second and 20 MB that a host with a store of its own need not spend.
    from spanlan.store.etcd import EtcdStore  # noqa: PLC0415

    return EtcdStore(
        address.endpoints,
        root=address.root,
        ca=_pem("SPANLAN_ETCD_CA", credentials.ca_file),
        cert=_pem("SPANLAN_ETCD_CERT", credentials.cert_file),
        key=_pem("SPANLAN_ETCD_KEY", credentials.key_file),
        user=credentials.user,
        password=_password(credentials.password_file),
        tls=address.tls,
    )


def _check(address: EtcdAddress, credentials: Credentials) -> None:
    tls_files = {
        "SPANLAN_ETCD_CA": credentials.ca_file,
        "SPANLAN_ETCD_CERT": credentials.cert_file,
        "SPANLAN_ETCD_KEY": credentials.key_file,
    }
    given = [name for name, file in tls_files.items() if file is not None]
    if given and not address.tls:
        raise Refuse(f"{', '.join(given)} is for TLS, and SPANLAN_STORE=etcd://… speaks without: write etcds://…")
    if (credentials.cert_file is None) != (credentials.key_file is None):
        raise Refuse("a client certificate is SPANLAN_ETCD_CERT and SPANLAN_ETCD_KEY: give both or none")
    if (credentials.user is None) != (credentials.password_file is None):
        raise Refuse("a user of etcd is SPANLAN_ETCD_USER and SPANLAN_ETCD_PASSWORD_FILE: give both or none")


def _pem(setting: str, file: Path | None) -> bytes | None:
    if file is None:
        return None
    content = _read(setting, file)
    if b"-----BEGIN " not in content:
        raise Broken(f"{setting}={file}: the file is not PEM (text with a line that starts with -----BEGIN)")
    return content


def _password(file: Path | None) -> str | None:
    if file is None:
        return None
    setting = "SPANLAN_ETCD_PASSWORD_FILE"
    first, _, _ = _read(setting, file).partition(b"\n")
    try:
        password = first.removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        # Without the cause, which quotes what it could not decode.
        raise Broken(f"{setting}={file}: the password in the file must be UTF-8 text") from None
    if not password:
        raise Broken(f"{setting}={file}: the first line of the file is empty; write the password into it")
    return password


def _read(setting: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Broken(f"{setting}={file}: cannot be read ({error.strerror}); check its name, owner and mode") from error


def _shown(url: str) -> str:
    return re.sub(r"//.*@", "//…@", url)
