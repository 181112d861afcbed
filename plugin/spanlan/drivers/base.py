"""The contract of a driver, and what its methods speak of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from spanlan.model.address import IPAddress
from spanlan.model.cluster import Segment
from spanlan.model.host import Attachment, Ground, Handover, Parent, Underlay, Wanted
from spanlan.model.local import LocalEndpoint, Network
from spanlan.model.mac import Mac
from spanlan.model.request import EndpointRequest, NetworkRequest
from spanlan.model.view import SegmentView, Touched


@dataclass(frozen=True, slots=True)
class UnderlayNamed:
    """A network that needs an underlay: an interface or one of its addresses; None for the host's own choice."""

    name: str | None


@dataclass(frozen=True, slots=True)
class NicNamed:
    """A network that needs a parent.  ``name`` as the user wrote it."""

    name: str


# What a network stands on, as this host has it; None for a network that needs nothing of it.
Site = Underlay | Parent | None


class Driver(Protocol):
    """What one mode of networks needs, worked out from what was asked and what is known."""

    @property
    def mode(self) -> str:
        """The word behind ``-o mode=``."""

    @property
    def options(self) -> type[Any]:
        """The option set, a dataclass made with :func:`spanlan.options.option`."""

    # -- a network comes ---------------------------------------------------------------------------------------------

    def parse(self, given: Mapping[str, str]) -> Any:
        """The options of a network.  Raises Refuse that lists every mistake."""

    def segment_name(self, chosen: Any, request: NetworkRequest) -> str:
        """The segment that the network belongs to: the same for the same request on every host."""

    def stands_on(self, chosen: Any) -> UnderlayNamed | NicNamed | None:
        """What must be looked for on this host."""

    def vlan_of_name(self, chosen: Any) -> Any:
        """The same options, with a VLAN that is in the parent's name (``eth0.10``) taken out of it; else unchanged."""

    def propose(self, chosen: Any, name: str, site: Site, free_vni: Callable[[], int]) -> Segment:
        """The segment as this host would found it.  Raises Refuse if it does not fit the site."""

    def check(self, chosen: Any, segment: Segment, site: Site) -> None:
        """Raise Refuse if the options contradict the segment that is there, or this host cannot carry it."""

    def attach(self, chosen: Any, segment: Segment, site: Site) -> Attachment:
        """How this host takes part.  Raises Refuse for a site that is not fit for it."""

    def readdressed(self, segment: Segment, attachment: Attachment, addresses: Sequence[IPAddress]) -> Attachment:
        """The attachment, now that its interface has these addresses."""

    def refuse_beside(self, attachment: Attachment, others: Sequence[Network], there: Parent | None = None) -> None:
        """Raise Refuse if a network cannot be attached so beside those that this host has.

        ``there``: the attachment's interface if it is there already, and who sits on it, also of other people.
        """

    def prefix(self, chosen: Any) -> str:
        """How interfaces are named inside containers, before the number."""

    # -- its segment is followed -------------------------------------------------------------------------------------

    def ground(self, segment: Segment, attachment: Attachment) -> Ground:
        """The links that the segment needs on this host."""

    def remarks(self, segment: Segment, attachment: Attachment) -> tuple[str, ...]:
        """What a person should know and do something about, although the segment works as far as it can."""

    def wanted(self, view: SegmentView, me: str, segment: Segment, attachment: Attachment, touched: Touched) -> Wanted:
        """The kernel's entries for what was touched; ``me`` is this host's name."""

    # -- an endpoint comes -------------------------------------------------------------------------------------------

    def mac(self, network: Network, request: EndpointRequest, addresses: Sequence[IPAddress]) -> Mac | None:
        """The endpoint's MAC, None if its link has none of its own.  Raises Refuse for one that cannot be given."""

    def handover(self, network: Network, endpoint: LocalEndpoint) -> Handover:
        """What Join gives to dockerd for an endpoint."""
