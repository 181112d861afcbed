"""The only place that builds things and joins them; the order of starting and stopping, and signals.

The door opens first and closes first: dockerd must always find somebody who answers, and an answer may be "not now".
"""

import logging
import os
import signal
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from spanlan import __version__
from spanlan.control.announcing import Announcing
from spanlan.control.debts import Debts
from spanlan.control.drift import Drift
from spanlan.control.endpoints import Endpoints
from spanlan.control.following import Following
from spanlan.control.host_access import HostAccess
from spanlan.control.ipam import Ipam, parse_default_pools
from spanlan.control.liveness import Liveness
from spanlan.control.loop import Loop, sweep
from spanlan.control.networks import Networks
from spanlan.control.peers import Peers
from spanlan.control.records import Records
from spanlan.control.releases import release_of, releasing
from spanlan.control.renumbering import Renumbering
from spanlan.control.segments import Segments
from spanlan.control.service import AddressService, NetworkService
from spanlan.control.sites import Sites
from spanlan.drivers import DRIVERS
from spanlan.errors import Refuse, SpanlanError
from spanlan.kernel import facts
from spanlan.kernel.links import Links
from spanlan.libnetwork.app import create_app
from spanlan.libnetwork.server import Server
from spanlan.metrics import Metrics
from spanlan.model.cluster import Host
from spanlan.model.host import own_links, routed_in
from spanlan.settings import Settings
from spanlan.store.base import Store
from spanlan.store.locate import Credentials, open_store
from spanlan.store.sqlite import SqliteStore
from spanlan.web.server import WebServer

log = logging.getLogger(__name__)

_INSTANCE = "instance"  # file in the state directory
GRACE = 3.0  # seconds between the end of a host's lease and its withdrawal


class Daemon:
    """One host's spanlan."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        me = settings.host
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._first_start = not (settings.state_dir / _INSTANCE).exists()
        self._records_store = SqliteStore(settings.state_dir / "host.db")
        self._store = _open(settings)
        self._records = Records(self._records_store)
        _refuse_new_name(settings, self._records)
        self.metrics = Metrics()
        self._links = Links()
        self._loop = Loop(self._links, resync=settings.resync, metrics=self.metrics)
        self._renumbering = Renumbering(self._readdress)
        self._drift = Drift(self._loop, addresses_changed=self._renumbering.addresses_changed)
        self._peers = Peers(self._store, self._loop, me=me, grace=GRACE, metrics=self.metrics)
        host = Host(name=me, version=__version__, instance=_instance(settings.state_dir))
        self._liveness = Liveness(self._store, host, ttl=settings.lease_ttl)
        self._debts = Debts(self._records, away=lambda: self._peers.lost)
        segments = Segments(self._store, me)
        ipam = Ipam(
            self._store,
            host=me,
            default_pools=parse_default_pools(settings.default_pools),
            host_networks=facts.networks,
            unsettled=lambda release: self._debts.owe(releasing(release)),
        )
        self._announcing = Announcing()
        self._endpoints = Endpoints(
            me=me,
            records=self._records,
            segments=segments,
            peers=self._peers,
            debts=self._debts,
            links=self._links,
            announce=self._announcing.announce,
        )
        self._networks = Networks(
            me=me,
            records=self._records,
            segments=segments,
            peers=self._peers,
            debts=self._debts,
            sites=Sites(underlay=settings.underlay, aliases=dict(settings.parents or ())),
            host_access=HostAccess(me=me, ipam=ipam, segments=segments),
            host=self._endpoints,
            automatic=ipam.is_automatic,
            created=ipam.network_created,
        )
        addresses = AddressService(ipam, self._debts, self._liveness)
        self._debts.ways = {
            "network": self._networks.leave,
            "endpoint": self._endpoints.give_back,
            "release": lambda debt: ipam.release(release_of(debt)),
        }
        app = create_app(
            NetworkService(self._networks, self._endpoints, self._liveness),
            addresses,
            observe=lambda method, seconds, outcome: self.metrics.handled(method, outcome, seconds),
        )
        self._door = Server(app, settings.socket)
        self._web = None
        if settings.http is not None:
            self._web = WebServer(
                settings.http.host, settings.http.port, status=self.status, registry=self.metrics.registry
            )
        self._peers.on_host_deleted = self._host_deleted
        self._peers.on_store_back = self._debts.pay_soon
        self._peers.on_ours_missing = self._restore

    def start(self) -> None:
        """Take up what the records say, open the door, and follow the cluster."""
        self._networks.resume()  # first, for a Join may be waiting at a socket that systemd holds
        self._door.start()
        if self._web is not None:
            self._web.start()
        self._sweep()
        self._renumbering.start()
        self._drift.start()
        self._loop.start()
        self._peers.start()
        self._liveness.start()
        self._debts.start()
        log.info("spanlan %s serves host %s, store %s", __version__, self._settings.host, self._settings.store)

    def stop(self) -> None:
        """Close the door, finish what is under way, and leave the data path as it is."""
        self._door.stop()
        if self._web is not None:
            self._web.stop()
        self._debts.stop()
        self._liveness.stop(containers_stay=bool(self._records.endpoints()))
        self._peers.stop()
        self._loop.stop()
        self._drift.stop()
        self._renumbering.stop()
        self._announcing.stop()
        self._store.close()
        self._records_store.close()
        log.info("stopped; the data path stays as it is")

    def status(self) -> Mapping[str, object]:
        """What a person asks first."""
        segments = self._loop.status()
        return {
            "host": self._settings.host,
            "version": __version__,
            "ready": self._peers.lost is None and all(segment["in_sync"] for segment in segments),
            "store": self._settings.store,
            "reason": self._peers.lost,
            "hosts": sorted(self._peers.hosts),
            "networks": len(self._records.networks()),
            "endpoints": len(self._records.endpoints()),
            "owed_to_the_store": len(self._records.debts()),
            "segments": segments,
        }

    def _sweep(self) -> None:
        """Remove links of ours that no record stands behind; if the records are new, running containers may."""
        if self._first_start:
            return
        networks = {network.network_id: network for network in self._records.networks()}
        grounds = [DRIVERS[each.segment.mode].ground(each.segment, each.attachment) for each in networks.values()]
        names = {name for ground in grounds for name in own_links(ground)}
        routed = {subnet for ground in grounds for subnet in routed_in(ground)}
        for endpoint in self._records.endpoints():
            of = networks.get(endpoint.network_id)
            if of is not None:
                names.add(DRIVERS[of.segment.mode].handover(of, endpoint).link.name)
        try:
            sweep(self._links, names, routed)
        except SpanlanError as error:
            log.warning("remnants could not be removed: %s", error)

    def _host_deleted(self, name: str) -> None:
        if name == self._settings.host:
            self._liveness.show_again()

    def _readdress(self) -> None:
        """Tell the cluster where this host is reached, if its addresses have changed."""
        for following in self._networks.readdress():
            self._networks.restore(following)

    def _restore(self, following: Following) -> None:
        try:
            self._networks.restore(following)
            self._endpoints.restore(following)
        except SpanlanError as error:
            log.warning("segment %s: could not be restored in the store: %s", following.segment.name, error)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.  Raises what keeps a daemon from starting."""
    daemon = Daemon(settings)
    wait_for_the_end = listen_for_the_end()
    daemon.start()
    log.info("%s: stopping", wait_for_the_end().name)
    daemon.stop()


def listen_for_the_end() -> Callable[[], signal.Signals]:
    """Take SIGTERM and SIGINT from now on; returns what waits for the first of them.

    All that the handler does is one system call.  It runs in the midst of whatever the main thread is doing, and a lock
    or a log line that is taken there already fails or blocks: with that the signal itself was lost.
    """
    told, tell = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os.write(tell, bytes([number])))
    return lambda: signal.Signals(os.read(told, 1)[0])


def _open(settings: Settings) -> Store:
    credentials = Credentials(
        ca_file=settings.etcd_ca,
        cert_file=settings.etcd_cert,
        key_file=settings.etcd_key,
        user=settings.etcd_user,
        password_file=settings.etcd_password_file,
    )
    return open_store(settings.store, credentials=credentials)


def _refuse_new_name(settings: Settings, records: Records) -> None:
    """What the store holds of this host stands under its name: who changes it would leave all that behind for ever.

    Raises Refuse if the name is another than before while networks of spanlan are on this host.
    """
    path = settings.state_dir / "name"
    before = path.read_text(encoding="utf-8").strip() if path.exists() else settings.host
    if before != settings.host and (records.networks() or records.endpoints() or records.debts()):
        raise Refuse(
            f"this host was {before} in the cluster when its networks were made, and now SPANLAN_HOST is "
            f"{settings.host}: set it to {before} again, or remove the networks of spanlan from this host under the "
            "old name first"
        )
    path.write_text(f"{settings.host}\n", encoding="utf-8")


def _instance(state_dir: Path) -> str:
    """What tells this host from another one of the same name: made up at the first start, and kept."""
    path = state_dir / _INSTANCE
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        made_up = uuid.uuid4().hex
        path.write_text(f"{made_up}\n", encoding="ascii")
        return made_up
