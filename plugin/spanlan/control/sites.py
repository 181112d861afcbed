"""What a network's options name, found on this host: an underlay for tunnels, a parent for children on the LAN.

Hosts call their NICs differently.  So a name may be an alias of this host (``SPANLAN_PARENTS=lan=eth1``), with which
the same ``docker network create`` line works everywhere, or ``auto``: where the default route points.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, assert_never

from spanlan.drivers.base import Driver, NicNamed, Site, UnderlayNamed
from spanlan.errors import Refuse
from spanlan.kernel import facts, parents
from spanlan.kernel.found import FoundVxlan
from spanlan.model.address import IPAddress
from spanlan.model.host import Parent

AUTO = "auto"


class Sites:
    """Looks at this host.  ``underlay``: its own choice, or None; ``aliases``: its own words for NICs."""

    def __init__(self, *, underlay: str | None = None, aliases: Mapping[str, str] | None = None) -> None:
        self._underlay = underlay
        self._aliases = {} if aliases is None else aliases

    def find(self, driver: Driver, chosen: Any) -> tuple[Any, Site]:
        """The site that the options name, and the options in this host's own words.

        Raises Refuse if there is none, with what there is instead.
        """
        match driver.stands_on(chosen):
            case None:
                return chosen, None
            case UnderlayNamed(name=name):
                return chosen, facts.underlay(self._tunnels_by(name))
            case NicNamed(name=name):
                return self._parent(driver, replace(chosen, parent=self.resolve(name)), name)
            case other:
                assert_never(other)

    def resolve(self, name: str) -> str:
        """A name in this host's own words: an alias, or ``auto``, also with a VLAN behind it (``lan.10``)."""
        if name in self._aliases:
            return self._aliases[name]
        if name == AUTO:
            return parents.default_parent().name
        base, dot, last = name.rpartition(".")
        if dot and last.isdigit():
            return f"{self.resolve(base)}.{last}"
        return name

    def _tunnels_by(self, name: str | None) -> str | None:
        """What a network names as its underlay, else what this host does; None for where the default route points."""
        own_choice = None if self._underlay is None else self.resolve(self._underlay)
        return own_choice if name is None or name == AUTO else self.resolve(name)

    def addresses(self, interface: str) -> Sequence[IPAddress]:
        """The host's own addresses on an interface; none if it is not there."""
        return facts.addresses(interface)

    def parent(self, name: str) -> Parent | None:
        """A link of this host and who sits on it; None if it is not there (yet)."""
        return parents.parent(name)

    def vxlan_devices(self) -> Sequence[FoundVxlan]:
        """The VXLAN devices of this host, ours and others'."""
        return facts.vxlan_devices()

    def _parent(self, driver: Driver, chosen: Any, written: str) -> tuple[Any, Parent]:
        """The NIC of that name; else the one that is named with a VLAN behind it, which is ours to make then."""
        nic = parents.parent(chosen.parent)
        if nic is None or nic.ours:
            chosen = driver.vlan_of_name(chosen)
            nic = parents.parent(chosen.parent)
        if nic is None:
            there = ", ".join(parents.names()) or "none"
            known = "".join(f", {alias} for {name}" for alias, name in sorted(self._aliases.items()))
            raise Refuse(
                f"option parent={written}: this host has no interface {chosen.parent}; there are {there}{known} "
                "(aliases are set with SPANLAN_PARENTS)"
            )
        return chosen, nic
