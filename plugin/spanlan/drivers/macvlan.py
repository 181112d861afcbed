"""macvlan: each container has a MAC and an address of its own on the physical LAN.

The child sits on a NIC or on a VLAN of it, and the switches carry its frames like those of any machine; addresses are
unique because the segment holds them, not because somebody wrote a list.  What the LAN must allow: several MACs behind
one port, which most switches do, and virtual machines' NICs only with promiscuous mode; wireless NICs never do.

Modes are the kernel's: *bridge* lets the children of one parent talk directly, *vepa* sends everything to the switch,
*private* keeps children apart, *passthru* gives the NIC to one child alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from spanlan import options
from spanlan.drivers import lan, parents
from spanlan.drivers.base import Site
from spanlan.drivers.lan import LanOptions
from spanlan.errors import Refuse
from spanlan.model.address import IPAddress
from spanlan.model.cluster import Segment
from spanlan.model.host import Attachment, Handover, LanAttachment, MacvlanLink, Parent
from spanlan.model.local import LocalEndpoint, Network
from spanlan.model.mac import Mac, derive_mac, format_mac
from spanlan.model.request import EndpointRequest
from spanlan.options import option

_KEEP_APART = frozenset({"private", "passthru"})


@dataclass(frozen=True, slots=True, kw_only=True)
class MacvlanOptions(LanOptions):
    """The ``-o`` options of a macvlan network."""

    mode: str = option(parse=options.choice("macvlan"), default="macvlan", help="kind of network")
    macvlan_mode: str = option(
        parse=options.choice("bridge", "private", "vepa", "passthru"),
        default="bridge",
        help="how children of one parent see each other",
    )


class MacvlanDriver(lan.LanDriver):
    """The macvlan mode."""

    mode = "macvlan"
    options = MacvlanOptions

    def attach(self, chosen: MacvlanOptions, segment: Segment, site: Site) -> LanAttachment:
        """How this host takes part."""
        lan.refuse_no_way_to_the_host(chosen, "macvlan_mode", _KEEP_APART, chosen.macvlan_mode)
        nic = lan.parent_of(site)
        if nic is not None:
            _refuse_unfit(nic)
        return lan.attach(chosen, segment, nic, kind="macvlan", mode=chosen.macvlan_mode)

    def refuse_beside(self, attachment: Attachment, others: Sequence[Network], there: Parent | None = None) -> None:
        """Raise Refuse if the network cannot share its parent with those that are there."""
        ours = lan.attachment_of(attachment)
        parents.refuse_other_kind(ours, others)
        parents.refuse_other_settings(ours, others)
        for other, theirs in parents.sharing(ours, others):
            _refuse_passthru(ours, f"network {other.network_id[:12]}", theirs.mode)
        for mode in parents.modes_upon(ours, there):
            _refuse_passthru(ours, "a link that spanlan did not make", mode)

    def mac(self, network: Network, request: EndpointRequest, addresses: Sequence[IPAddress]) -> Mac | None:
        """The MAC that was asked for, or one derived from the segment and the first address; none with passthru."""
        if lan.attachment_of(network.attachment).mode != "passthru":
            return request.mac or derive_mac(network.segment.name, addresses[0])
        if request.mac is not None:
            raise Refuse(
                f"--mac-address {format_mac(request.mac)}: with macvlan_mode=passthru a container has the MAC of its "
                "parent; leave the option out, or set the parent's MAC"
            )
        return None

    def child(self, attachment: LanAttachment, name: str, alias: str, mac: Mac | None) -> MacvlanLink:
        """A macvlan link of the network's mode."""
        return MacvlanLink(name, alias, attachment.parent, mac, attachment.mtu, attachment.mode)

    def handover(self, network: Network, endpoint: LocalEndpoint) -> Handover:
        """A child on the parent, and the gateways that the network names."""
        return lan.with_gateways(network, endpoint, self.container_child(network, endpoint))


def _refuse_passthru(ours: LanAttachment, who: str, mode: str) -> None:
    if "passthru" in {ours.mode, mode}:
        raise Refuse(
            f"option macvlan_mode={ours.mode}: {ours.parent} is used by {who} (macvlan {mode}), and passthru takes a "
            "NIC for one network alone; choose another parent or another mode"
        )


def _refuse_unfit(nic: Parent) -> None:
    if nic.wireless:
        raise Refuse(
            f"option parent={nic.name}: an access point takes frames of one MAC only, so macvlan cannot work on a "
            "wireless NIC; use -o mode=ipvlan"
        )
