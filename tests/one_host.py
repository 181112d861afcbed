"""One host's networks and endpoints, joined as the daemon joins them, without dockerd and door.

It works in the network namespace of the thread that makes it, on the real kernel and a real store.
"""

from collections.abc import Mapping, Sequence
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, Self

from spanlan.control.debts import Debts
from spanlan.control.endpoints import Endpoints
from spanlan.control.host_access import HostAccess
from spanlan.control.ipam import DEFAULT_POOLS, Ipam, parse_default_pools
from spanlan.control.liveness import Liveness
from spanlan.control.loop import Loop
from spanlan.control.networks import Networks
from spanlan.control.peers import Peers
from spanlan.control.records import Records
from spanlan.control.releases import release_of
from spanlan.control.segments import Segments
from spanlan.control.service import NetworkService
from spanlan.control.sites import Sites
from spanlan.kernel import facts
from spanlan.kernel.links import Links
from spanlan.metrics import Metrics
from spanlan.model.cluster import Host
from spanlan.model.request import EndpointReply, EndpointRequest, NetworkPool, NetworkRequest
from spanlan.store.base import Store
from spanlan.store.sqlite import SqliteStore


class OneHost:
    """A host called ``me``, whose records are in ``folder``."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        me: str = "a",
        underlay: str = "under0",
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self.links = Links()
        self.records = Records(SqliteStore(folder / f"{me}.db"))
        self.loop = Loop(self.links, resync=3600, metrics=Metrics())
        self.peers = Peers(store, self.loop, me=me, grace=0.2, metrics=Metrics())
        self.debts = Debts(self.records, away=lambda: None)
        self.segments = Segments(store, me)
        self.endpoints = Endpoints(
            me=me,
            records=self.records,
            segments=self.segments,
            peers=self.peers,
            debts=self.debts,
            links=self.links,
        )
        ipam = self.ipam = Ipam(
            store, host=me, default_pools=parse_default_pools(DEFAULT_POOLS), host_networks=facts.networks
        )
        self.networks = Networks(
            me=me,
            records=self.records,
            segments=self.segments,
            peers=self.peers,
            debts=self.debts,
            sites=Sites(underlay=underlay, aliases=aliases),
            host_access=HostAccess(me=me, ipam=ipam, segments=self.segments),
            host=self.endpoints,
            automatic=lambda _: False,
            created=lambda _pools, _segment: None,
        )
        self.liveness = Liveness(store, Host(me, "0", f"instance of {me}"), ttl=10)
        self.service = NetworkService(self.networks, self.endpoints, self.liveness)
        self.debts.ways = {
            "network": self.networks.leave,
            "endpoint": self.endpoints.give_back,
            "release": lambda debt: ipam.release(release_of(debt)),
        }
        self.peers.on_ours_missing = self._restore

    def __enter__(self) -> Self:
        self.networks.resume()
        self.loop.start()
        self.peers.start()
        self.liveness.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.liveness.stop(containers_stay=False)
        self.peers.stop()
        self.loop.stop()

    def create_network(
        self, network: str, segment: str | None = "blue", pools: Sequence[NetworkPool] = (), **options: str
    ) -> None:
        given = options if segment is None else {"segment": segment, **options}
        self.service.create_network(NetworkRequest(network, given, tuple(pools)))

    def create_endpoint(self, network: str, endpoint: str, address: str, address6: str | None = None) -> EndpointReply:
        four: Any = ip_interface(address)
        six: Any = None if address6 is None else ip_interface(address6)
        return self.service.create_endpoint(EndpointRequest(network, endpoint, four, six))

    def _restore(self, following: Any) -> None:
        self.networks.restore(following)
        self.endpoints.restore(following)
