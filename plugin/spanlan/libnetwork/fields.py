"""Reading the fields of a JSON object: strict on what is read, blind to the rest.

dockerd sends null, an empty string or nothing at all for what is not set, depending on the field and the engine's
version, so these three mean the same here.  Everything else must be of the right type and form, and a complaint names
the field and the value.  Nothing in this module knows which requests there are.
"""

import json
import re
from collections.abc import Mapping
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, ip_interface

from spanlan.errors import Refuse
from spanlan.model.address import IPAddress, IPNetwork, ip_address
from spanlan.model.mac import Mac, parse_mac

_LONGEST_SHOWN = 80

# NetworkIDs are 64 hex digits, or 25 letters and digits in a swarm; both become part of store keys.
_IDENTIFIER = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,127}")
# Pool ids are our own; they may contain a CIDR.
_POOL_IDENTIFIER = re.compile(r"[!-~]{1,256}")
_PREFIX_LENGTH = re.compile(r"[0-9]{1,3}")


def shown(value: object) -> str:
    """The value as it appears in a message: as JSON where it came from JSON, and cut when it is long."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


class Fields:
    """A JSON object of a request.  ``path`` is where it stands in the body, for messages."""

    def __init__(self, values: Mapping[str, object], path: str = "") -> None:
        self._values = values
        self._path = path

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def text(self, name: str) -> str:
        """A string; empty when it is not set."""
        value = self._values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.refusal(name, "a string")
        return self._storable(name, value)

    def flag(self, name: str) -> bool:
        """A boolean; false when it is not set."""
        value = self._values.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self.refusal(name, "true or false")
        return value

    def length(self, name: str) -> int:
        """How many entries a list has; 0 when it is not set or no list."""
        value = self._values.get(name)
        return len(value) if isinstance(value, list) else 0

    def part(self, name: str) -> "Fields":
        """An object inside this one; empty when it is not set."""
        value = self._values.get(name)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.refusal(name, "an object")
        return Fields(value, self._at(name))

    def parts(self, name: str) -> list["Fields"]:
        """A list of objects; empty when it is not set."""
        value = self._values.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self.refusal(name, "a list of objects")
        return [Fields(entry, f"{self._at(name)}[{number}]") for number, entry in enumerate(value)]

    def names(self) -> list[str]:
        """The names of the fields that are there, in their order."""
        return [self._storable(name, name) for name in self._values]

    def texts(self) -> dict[str, str]:
        """All fields of this object, which must be strings (an option map)."""
        return {name: self.text(name) for name in self.names()}

    def only_texts(self) -> dict[str, str]:
        """Those fields of this object that are strings."""
        return {name: self.text(name) for name in self.names() if isinstance(self._values[name], str)}

    def identifier(self, name: str) -> str:
        """An id that dockerd made; it must be there."""
        text = self.text(name)
        if not _IDENTIFIER.fullmatch(text):
            raise self.refusal(name, "an id of at most 128 letters, digits, '_', '.' and '-'")
        return text

    def pool_identifier(self, name: str) -> str:
        """The id of a pool, as RequestPool answered it; it must be there."""
        text = self.text(name)
        if not _POOL_IDENTIFIER.fullmatch(text):
            raise self.refusal(name, "the id of a pool, at most 256 printable characters without blanks")
        return text

    def address(self, name: str) -> IPAddress | None:
        """A bare IP address."""
        text = self.text(name)
        if not text:
            return None
        try:
            return _without_zone(ip_address(text))
        except ValueError:
            raise self.refusal(name, "an IP address such as 10.42.0.2 or fd42::2") from None

    def interface(self, name: str) -> IPv4Interface | IPv6Interface | None:
        """An IP address with the length of its network's prefix."""
        text = self.text(name)
        if not text:
            return None
        try:
            return ip_interface(_with_prefix_length(text))
        except ValueError:
            wanted = "an IP address with its prefix length, such as 10.42.0.2/24 or fd42::2/64"
            raise self.refusal(name, wanted) from None

    def interface4(self, name: str) -> IPv4Interface | None:
        """An IPv4 address with the length of its network's prefix."""
        interface = self.interface(name)
        if interface is None or isinstance(interface, IPv4Interface):
            return interface
        raise self.refusal(name, "an IPv4 address with its prefix length, such as 10.42.0.2/24")

    def interface6(self, name: str) -> IPv6Interface | None:
        """An IPv6 address with the length of its network's prefix."""
        interface = self.interface(name)
        if interface is None or isinstance(interface, IPv6Interface):
            return interface
        raise self.refusal(name, "an IPv6 address with its prefix length, such as fd42::2/64")

    def network(self, name: str) -> IPNetwork | None:
        """A network in CIDR notation, without bits behind its prefix."""
        text = self.text(name)
        if not text:
            return None
        try:
            interface = ip_interface(_with_prefix_length(text))
        except ValueError:
            raise self.refusal(name, "a network in CIDR notation, such as 10.42.0.0/16 or fd42::/64") from None
        if interface.ip != interface.network.network_address:
            raise self.refusal(name, f"a network, not an address in it: did you mean {interface.network}?")
        return interface.network

    def mac(self, name: str) -> Mac | None:
        """A MAC address."""
        text = self.text(name)
        if not text:
            return None
        try:
            return parse_mac(text)
        except ValueError as error:
            raise self.refusal(name, str(error)) from None

    def refusal(self, name: str, wanted: str) -> Refuse:
        """The complaint that field ``name`` must be ``wanted``, to be raised by the caller."""
        if name not in self._values:
            return Refuse(f"field {self._at(name)} is missing: it must be {wanted}")
        return Refuse(f"field {self._at(name)} is {shown(self._values[name])}: it must be {wanted}")

    def _at(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def _storable(self, name: str, text: str) -> str:
        # JSON can spell half a surrogate pair, which no UTF-8 file, store or log can hold.
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Refuse(f"field {shown(self._at(name))} is {shown(text)}: it must be valid Unicode text") from None
        return text


def _with_prefix_length(text: str) -> str:
    # ``ipaddress`` also takes a missing length, a netmask and a zone (fe80::1%eth0); none of them is meant here.
    _, _, length = text.partition("/")
    if "%" in text or not _PREFIX_LENGTH.fullmatch(length):
        raise ValueError(text)
    return text


def _without_zone(address: IPAddress) -> IPAddress:
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError(address)
    return address
