"""The settings of a daemon: one table for environment variables, flags, help texts, README and ``config.json``.

Settings say what differs from host to host (where the store is, which link is the underlay).  What differs from network
to network is an option of ``docker network create`` and does not belong here.  This module reads no file and opens no
connection: it only looks whether a named file is there, so that a typo shows before the daemon has touched anything.
Secrets never stand in a setting; a setting names the file that holds one.
"""

import dataclasses
import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from spanlan.control.ipam import DEFAULT_POOLS, parse_default_pools
from spanlan.errors import Refuse
from spanlan.model.address import ip_address
from spanlan.options import Row, choice, describe, name, number, option, parse, unknown

PREFIX = "SPANLAN_"

_LONGEST_LINK_NAME = 15  # IFNAMSIZ less the closing zero, linux/if.h
_PORTS = range(1, 65536)
_ETCD_PORT = 2379  # what a server's address means when it names none
_ETCD_ACCESS = ("etcd_ca", "etcd_cert", "etcd_key", "etcd_user", "etcd_password_file")
_ETCD_TLS = ("etcd_ca", "etcd_cert", "etcd_key")


class Listen(NamedTuple):
    """Where the web page is served: an address or host name, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        """``host:port``, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _store(text: str) -> str:
    kinds = "sqlite:///PATH, etcd://HOST:PORT[,HOST:PORT…][/PREFIX] or etcds://… (TLS)"
    try:
        url = urlsplit(text)
    except ValueError:
        raise ValueError(kinds) from None
    if "@" in url.netloc:
        raise ValueError("an address without user or password; use SPANLAN_ETCD_USER and SPANLAN_ETCD_PASSWORD_FILE")
    if url.query or url.fragment:
        raise ValueError(f"{kinds}, with nothing behind it")
    if url.scheme == "sqlite":
        if url.netloc or not url.path.startswith("/") or url.path.endswith("/"):
            raise ValueError("sqlite:///PATH with an absolute path of a file")
        return text
    if url.scheme not in {"etcd", "etcds"}:
        raise ValueError(kinds)
    for server in url.netloc.split(","):
        if _listen_parts(server) is None and _listen_parts(f"{server}:{_ETCD_PORT}") is None:
            raise ValueError(f"{url.scheme}://HOST:PORT[,HOST:PORT…][/PREFIX]; '{server}' is not HOST:PORT")
    return text


_store.values = "sqlite:///PATH, etcd://HOST:PORT,…/PREFIX, etcds://HOST:PORT,…/PREFIX"  # type: ignore[attr-defined]


def _without_password(text: str) -> str:
    return re.sub(r"//.*@", "//…@", text)


def _is_link_name(text: str) -> bool:
    return 1 <= len(text) <= _LONGEST_LINK_NAME and not re.search(r"[/\s]", text) and text not in {".", ".."}


def _underlay(text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        if _is_link_name(text):
            return text
        raise ValueError("the name of a network interface or an IP address of this host") from None
    if address.is_unspecified or address.is_multicast or address.is_loopback:
        raise ValueError("an address that other hosts can reach")
    return text


_underlay.values = "interface or address"  # type: ignore[attr-defined]


def _parents(text: str) -> tuple[tuple[str, str], ...]:
    pairs = [tuple(part.strip() for part in pair.split("=", 1)) for pair in text.split(",") if pair.strip()]
    aliases = [pair[0] for pair in pairs]
    words = all(len(pair) == 2 and all(_is_link_name(word) for word in pair) for pair in pairs)  # noqa: PLR2004
    if not words or len(set(aliases)) < len(aliases) or "auto" in aliases:
        raise ValueError("ALIAS=INTERFACE pairs such as lan=eth1,storage=eth2, each alias once and none called auto")
    return tuple((alias, interface) for alias, interface in pairs)


_parents.values = "ALIAS=INTERFACE,…"  # type: ignore[attr-defined]


def _absolute(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute() or "\0" in text:
        raise ValueError("an absolute path")
    return path


_absolute.values = "path"  # type: ignore[attr-defined]


def _file(text: str) -> Path:
    path = _absolute(text)
    if not path.is_file():
        raise ValueError("an existing file")
    return path


_file.values = "file"  # type: ignore[attr-defined]


def _listen(text: str) -> Listen | None:
    if text.lower() == "off":
        return None
    parts = _listen_parts(text)
    if parts is None:
        raise ValueError("ADDRESS:PORT (an IPv6 address in brackets), or off")
    return parts


_listen.values = "address:port, off"  # type: ignore[attr-defined]


def _listen_parts(text: str) -> Listen | None:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", text)
    if found is None:
        return None
    six, host, port = found.groups()
    try:
        bracketed_is_right = six is None or ip_address(six).version == 6  # noqa: PLR2004 - the family's own name
    except ValueError:
        return None
    return Listen(six or host, int(port)) if bracketed_is_right and int(port) in _PORTS else None


def _default_pools(text: str) -> str:
    if not parse_default_pools(text):
        raise ValueError("at least one network with the size of its pools, such as 10.64.0.0/11/20")
    return text


_default_pools.values = getattr(parse_default_pools, "values", "text")  # type: ignore[attr-defined]


def _plain(text: str) -> str:
    if not text.isprintable():
        raise ValueError("printable text")
    return text


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, checked.  :func:`read` makes one; the daemon hands each room the values that it needs."""

    store: str = option(
        parse=_store,
        shown=_without_password,
        default="sqlite:///var/lib/spanlan/spanlan.db",
        help="Where the cluster's state lives: a file for one host, etcd for several.",
    )
    host: str = option(
        parse=name,
        default="",
        default_text="the host name",
        help="Name of this host, unique in the cluster.",
    )
    underlay: str | None = option(
        parse=_underlay,
        default=None,
        default_text="where the default route points",
        help="Interface or address that carries the tunnels between hosts.",
    )
    parents: tuple[tuple[str, str], ...] | None = option(
        parse=_parents,
        default=None,
        default_text="",
        help="This host's own names for NICs, so that -o parent=lan works on every host: lan=eth1,storage=eth2.",
    )
    socket: Path = option(
        parse=_absolute,
        default=Path("/run/docker/plugins/spanlan.sock"),
        help="Unix socket on which dockerd finds the plugin.",
    )
    state_dir: Path = option(
        parse=_absolute,
        default=Path("/var/lib/spanlan"),
        help="Directory for what this host must remember across restarts.",
    )
    http: Listen | None = option(
        parse=_listen,
        default=Listen("127.0.0.1", 9580),
        help="Where health, metrics and the status page are served, without a password.",
    )
    log: str = option(
        parse=choice("debug", "info", "warning", "error"),
        default="info",
        help="How much is logged to standard error.",
    )
    etcd_ca: Path | None = option(
        parse=_file,
        default=None,
        default_text="the system's authorities",
        help="Certificate authority of the etcd servers (PEM), for etcds://.",
    )
    etcd_cert: Path | None = option(
        parse=_file, default=None, help="Client certificate for etcd (PEM), for etcds://; needs the key."
    )
    etcd_key: Path | None = option(parse=_file, default=None, help="Key of the client certificate (PEM).")
    etcd_user: str | None = option(
        parse=_plain, default=None, values="user name", help="User at etcd; needs the password file."
    )
    etcd_password_file: Path | None = option(
        parse=_file, default=None, help="File whose first line is the password of the etcd user."
    )
    default_pools: str = option(
        parse=_default_pools,
        default=DEFAULT_POOLS,
        help="Where networks without --subnet get one: networks, each with the prefix length of its pools.",
    )
    lease_ttl: int = option(
        parse=number(3, 3600),
        default=10,
        help="Seconds without a sign of life after which the other hosts hold this one for dead.",
    )
    resync: int = option(
        parse=number(5, 86400),
        default=300,
        help="Seconds between full comparisons with the kernel, beside those that changes cause.",
    )


def variable(field: str) -> str:
    """The environment variable of a setting: ``SPANLAN_STORE`` for ``store``."""
    return PREFIX + field.upper()


def flag(field: str) -> str:
    """The command-line flag of a setting: ``--etcd-ca`` for ``etcd_ca``."""
    return "--" + field.replace("_", "-")


def table() -> list[Row]:
    """The reference table of the settings: first name is the field, second the variable, third the flag."""
    return [
        dataclasses.replace(row, names=(row.names[0], variable(row.names[0]), flag(row.names[0])))
        for row in describe(Settings)
    ]


def read(
    environment: Mapping[str, str],
    flags: Mapping[str, str] | None = None,
    *,
    host_name: Callable[[], str] = socket.gethostname,
) -> Settings:
    """The settings that ``environment`` and ``flags`` (field name to text) give; a flag wins over its variable.

    An empty variable counts as not set, because a managed plugin always passes every variable of ``config.json``.
    Raises Refuse that lists every mistake: unknown ``SPANLAN_`` variables, bad values, settings at odds.
    """
    by_flag = dict(flags or {})
    given = {
        key.removeprefix(PREFIX).lower(): text
        for key, text in environment.items()
        if key.startswith(PREFIX) and text != ""
    }
    given |= by_flag

    def spell(field: str) -> str:
        return flag(field) if field in by_flag else variable(field)

    if not given.get("host"):
        given["host"] = host_name()
    known = [row.names[0] for row in describe(Settings)]
    mistakes = [unknown(field, known, "setting", variable) for field in given if field not in known]
    mistakes += _at_odds(given, spell)
    given = {field: text for field, text in given.items() if field in known}
    settings = parse(Settings, given, word="setting", spell=spell, more=mistakes)
    if settings.host == "localhost" and not settings.store.startswith("sqlite:"):
        raise Refuse("setting SPANLAN_HOST=localhost: must be a name that no other host of the cluster has")
    return settings


def _at_odds(given: Mapping[str, Any], spell: Callable[[str], str]) -> list[str]:
    """Mistakes that only show when settings are seen together."""
    mistakes = [
        f"setting {spell(one)} needs {spell(other)}"
        for one, other in [
            ("etcd_cert", "etcd_key"),
            ("etcd_key", "etcd_cert"),
            ("etcd_user", "etcd_password_file"),
            ("etcd_password_file", "etcd_user"),
        ]
        if one in given and other not in given
    ]
    store = given.get("store", "sqlite:")
    if store.startswith("sqlite:"):
        mistakes += [f"setting {spell(one)} needs a store at etcd://…" for one in _ETCD_ACCESS if one in given]
    elif store.startswith("etcd:"):
        mistakes += [f"setting {spell(one)} needs a store at etcds://… (TLS)" for one in _ETCD_TLS if one in given]
    return mistakes
