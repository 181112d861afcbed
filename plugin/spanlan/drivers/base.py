"""The contract of a driver."""

from collections.abc import Mapping
from typing import Any, Protocol

from spanlan.model.address import IPAddress
from spanlan.model.cluster import Segment
from spanlan.model.host import Attachment, Handover, Underlay, VxlanLink
from spanlan.model.local import LocalEndpoint, Network
from spanlan.model.mac import Mac
from spanlan.model.view import SegmentView


class Driver(Protocol):
    """What one mode of networks needs, worked out from what was asked and what is known."""

    @property
    def mode(self) -> str:
        """The word behind ``-o mode=``."""

    @property
    def options(self) -> type[Any]:
        """The option set, a dataclass made with :func:`spanlan.options.option`."""

    def parse(self, given: Mapping[str, str]) -> Any:
        """The options of a network.  Raises Refuse that lists every mistake."""

    def segment_name(self, chosen: Any) -> str:
        """The segment that the options name."""

    def parent(self, chosen: Any) -> str | None:
        """The underlay that the options name, or None for the host's own."""

    def propose(self, chosen: Any, underlay: Underlay, vni: int) -> Segment:
        """The segment as this host would found it.  Raises Refuse if it does not fit the underlay."""

    def check(self, chosen: Any, segment: Segment, underlay: Underlay) -> None:
        """Raise Refuse if the options contradict the segment that is there, or this host cannot carry it."""

    def attach(self, chosen: Any, segment: Segment, underlay: Underlay) -> Attachment:
        """How this host takes part."""

    def prefix(self, chosen: Any) -> str:
        """How interfaces are named inside containers, before the number."""

    def device(self, segment: Segment, attachment: Attachment) -> VxlanLink:
        """The device that the segment needs on this host."""

    def neighbour(self, view: SegmentView, me: str, address: IPAddress) -> Mac | None:
        """The MAC that must be known for ``address``, or None if no entry is wanted."""

    def fdb(self, view: SegmentView, me: str, mac: Mac) -> IPAddress | None:
        """The VTEP that ``mac`` must lead to, or None if no entry is wanted."""

    def handover(self, network: Network, endpoint: LocalEndpoint) -> Handover:
        """What Join gives to dockerd for an endpoint."""
