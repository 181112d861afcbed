"""Networks of one host on the physical LAN, from their creation to their end, also where a step on the way fails.

The LAN is a veth pair: ``under0`` is the host's NIC, ``wire0`` the machine at the other end of the cable.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from netns import NetworkNamespace
from one_host import OneHost
from spanlan.control import host_access
from spanlan.control.drift import Drift
from spanlan.control.renumbering import Renumbering
from spanlan.errors import Broken, Refuse, Retry
from spanlan.kernel.routes import ROUTE_PROTOCOL
from spanlan.model.cluster import Endpoint, Member
from spanlan.model.local import Network
from spanlan.model.request import NetworkPool, PoolRequest
from spanlan.store import codec, keys
from spanlan.store.base import Put
from spanlan.store.sqlite import SqliteStore

BLUE, RED, BLUE6 = ip_network("192.168.10.0/24"), ip_network("192.168.20.0/24"), ip_network("2001:db8:10::/64")
BLUE_POOL, RED_POOL = NetworkPool(BLUE, ip_address("192.168.10.1")), NetworkPool(RED)
BLUE_POOLS = (BLUE_POOL, NetworkPool(BLUE6))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "cluster.db")
    yield opened
    opened.close()


@pytest.fixture
def host(namespace: NetworkNamespace, store: SqliteStore, tmp_path: Path) -> Iterator[OneHost]:
    with OneHost(store, tmp_path, aliases={"lan": "under0"}) as started:
        yield started


@contextmanager
def attentive(host: OneHost) -> Iterator[None]:
    """The host hears what the kernel says, as the daemon does."""

    def look() -> None:
        for following in host.networks.readdress():
            host.networks.restore(following)

    renumbering = Renumbering(look)
    drift = Drift(host.loop, addresses_changed=renumbering.addresses_changed)
    renumbering.start()
    drift.start()
    try:
        yield
    finally:
        drift.stop()
        renumbering.stop()


def wait_until(condition: Callable[[], object]) -> None:
    ends_at = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.01)


def devices(host: OneHost) -> list[str]:
    return sorted(link.name for link in host.links.ours())


def status(host: OneHost, segment: str) -> dict[str, object]:
    (one,) = [each for each in host.loop.status() if each["segment"] == segment]
    return one


def settled(host: OneHost, segment: str) -> None:
    following = host.peers.following(segment)
    assert following is not None
    assert following.wait(20)


def our_routes(namespace: NetworkNamespace, *family: str) -> dict[str, str]:
    routes = namespace.json("ip", "-j", *family, "route", "show", "proto", str(ROUTE_PROTOCOL))
    return {route["dst"]: route["dev"] for route in routes}


def grant(host: OneHost, cidr: str, within: str | None = None) -> str:
    """What dockerd asks of the IPAM half before it creates a network: the pool's id."""
    network = ip_network(cidr)
    asked = PoolRequest(network, None if within is None else ip_network(within), {}, v6=network.version == 6)
    return host.ipam.request_pool(asked).pool_id


def nothing_is_left(host: OneHost, store: SqliteStore) -> None:
    host.debts.pay_all()
    assert devices(host) == []
    assert [entry.key for entry in (*store.range("/segments/").entries, *store.range("/pools/").entries)] == []
    assert host.records.endpoints() + host.records.networks() + host.records.debts() == []


def vteps(store: SqliteStore, segment: str = "blue") -> dict[str, list[str]]:
    members = [codec.decode_member(entry) for entry in store.range(keys.members(segment)).entries]
    return {member.host: [str(address) for address in member.underlay] for member in members}


class TestMacvlan:
    def test_what_comes_goes_and_leaves_nothing(
        self, namespace: NetworkNamespace, host: OneHost, store: SqliteStore
    ) -> None:
        host.create_network("n1", None, BLUE_POOLS, mode="macvlan", parent="under0")
        assert devices(host) == []  # the parent is the host's
        reply = host.create_endpoint("n1", "e1", "192.168.10.5/24", "2001:db8:10::5/64")
        handover = host.service.join("n1", "e1", "")
        assert devices(host) == ["sle-e1"]
        (link,) = namespace.json("ip", "-j", "-d", "link", "show", "sle-e1")
        assert (link["link"], link["linkinfo"]["info_data"]["mode"]) == ("under0", "bridge")
        assert bytes.fromhex(link["address"].replace(":", "")) == reply.mac
        assert (handover.gateway, handover.announced) == (ip_address("192.168.10.1"), True)
        held = store.range("/segments/lan.192.168.10.0-24/endpoints/").entries
        assert [codec.decode_endpoint(entry).host for entry in held] == ["a", "a"]
        host.service.delete_endpoint("n1", "e1")
        host.service.delete_network("n1")
        nothing_is_left(host, store)
        assert namespace.command("ip", "link", "show", "under0")

    def test_two_networks_share_a_parent(self, host: OneHost, store: SqliteStore) -> None:
        host.create_network("n1", None, [BLUE_POOL], mode="macvlan", parent="under0")
        host.create_network("n2", None, [RED_POOL], mode="macvlan", macvlan_mode="private", parent="lan")
        host.create_endpoint("n1", "e1", "192.168.10.5/24")
        host.create_endpoint("n2", "e2", "192.168.20.5/24")
        host.service.join("n1", "e1", "")
        host.service.join("n2", "e2", "")
        assert devices(host) == ["sle-e1", "sle-e2"]
        host.service.delete_endpoint("n1", "e1")
        host.service.delete_network("n1")
        assert devices(host) == ["sle-e2"]
        assert host.peers.following("lan.192.168.20.0-24") is not None
        host.service.delete_network("n2")
        nothing_is_left(host, store)

    def test_an_address_is_given_out_once_whatever_hosts_call_their_parents(
        self, namespace: NetworkNamespace, host: OneHost, store: SqliteStore, tmp_path: Path
    ) -> None:
        host.create_network("n1", None, [BLUE_POOL], mode="macvlan", parent="under0")
        host.create_endpoint("n1", "e1", "192.168.10.5/24")
        namespace.command("ip", "link", "set", "wire0", "up")
        with OneHost(store, tmp_path, me="b") as other:
            other.create_network("n2", None, [BLUE_POOL], mode="macvlan", parent="wire0")
            with pytest.raises(Refuse, match=r"address 192\.168\.10\.5 on segment lan\.192\.168\.10\.0-24 is held by"):
                other.create_endpoint("n2", "e2", "192.168.10.5/24")

    def test_a_passthru_parent_has_one_network_and_a_container_that_crashed_gives_its_address_on(
        self, host: OneHost, store: SqliteStore
    ) -> None:
        options = {"mode": "macvlan", "macvlan_mode": "passthru", "parent": "under0"}
        host.create_network("n1", None, [BLUE_POOL], **options)
        with pytest.raises(Refuse, match="passthru takes a NIC for one network alone"):
            host.create_network("n2", None, [RED_POOL], mode="macvlan", parent="under0")
        assert host.create_endpoint("n1", "e1", "192.168.10.5/24").mac is None
        host.service.join("n1", "e1", "")  # then the machine is switched off, and dockerd never says that e1 ended
        host.create_endpoint("n1", "e2", "192.168.10.5/24")
        assert [endpoint.endpoint_id for endpoint in host.records.endpoints()] == ["e2"]
        assert devices(host) == []
        host.service.delete_network("n1")
        nothing_is_left(host, store)

    def test_a_container_whose_link_is_in_its_sandbox_keeps_its_address(
        self, namespace: NetworkNamespace, host: OneHost, new_namespace: Callable[[], NetworkNamespace]
    ) -> None:
        host.create_network("n1", None, [BLUE_POOL], mode="macvlan", macvlan_mode="passthru", parent="under0")
        host.create_endpoint("n1", "e1", "192.168.10.5/24")
        host.service.join("n1", "e1", "")
        sandbox = new_namespace()
        sandbox.take("sle-e1", of=namespace)
        sandbox.command("ip", "link", "set", "sle-e1", "name", "eth0")
        with pytest.raises(Refuse, match="held by endpoint e1"):
            host.create_endpoint("n1", "e2", "192.168.10.5/24")


class TestIsolated:
    def test_a_network_without_parent_stays_on_this_host_and_leaves_nothing(
        self, host: OneHost, store: SqliteStore
    ) -> None:
        host.create_network("n1", None, [BLUE_POOL], mode="macvlan")
        (parent,) = devices(host)
        assert parent.startswith("sli-")
        host.create_endpoint("n1", "e1", "192.168.10.5/24")
        handover = host.service.join("n1", "e1", "")
        assert handover.link.parent == parent
        assert (handover.gateway, handover.disable_gateway_service) == (None, True)
        host.service.delete_endpoint("n1", "e1")
        host.service.delete_network("n1")
        nothing_is_left(host, store)

    def test_networks_without_parent_share_one_if_they_name_one_segment(
        self, host: OneHost, store: SqliteStore
    ) -> None:
        host.create_network("n1", "lab", [BLUE_POOL], mode="macvlan")
        host.create_network("n2", "lab", [BLUE_POOL], mode="macvlan")
        host.create_network("n3", None, [BLUE_POOL], mode="macvlan")
        assert len(devices(host)) == 2
        host.service.delete_network("n1")
        assert len(devices(host)) == 2
        host.service.delete_network("n2")
        assert len(devices(host)) == 1
        host.service.delete_network("n3")
        nothing_is_left(host, store)


class TestParent:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"parent": "eth7"},
                "this host has no interface eth7; there are under0, wire0, lan for under0 (aliases are set with",
            ),
            ({"parent": "eth7.10"}, "option parent=eth7.10: this host has no interface eth7; there are under0"),
            ({"parent": "a-name-much-longer-than-linux-takes"}, "this host has no interface a-name-much-longer"),
            ({"parent": "lo"}, "option parent=lo: the loopback leads nowhere; name a NIC"),
            ({"parent": "auto"}, "there is no default route that would show the parent: name it with -o parent="),
            ({"parent": "under0.4095"}, "option parent=under0.4095: a VLAN is a number from 1 to 4094, not 4095"),
            ({"parent": "lan.0"}, "option parent=under0.0: a VLAN is a number from 1 to 4094, not 0"),
            ({"parent": "under0", "mtu": "9000"}, "option mtu=9000: under0 carries at most 1500"),
            ({"parent": "port0"}, "option parent=port0: it is a port of br0, which takes its packets; name br0"),
        ],
    )
    def test_one_that_cannot_be_is_refused_and_nothing_is_left(
        self, namespace: NetworkNamespace, host: OneHost, store: SqliteStore, options: dict[str, str], message: str
    ) -> None:
        if options["parent"] == "port0":
            namespace.command("ip", "link", "add", "br0", "type", "bridge")
            namespace.command("ip", "link", "add", "port0", "type", "veth", "peer", "name", "port1")
            namespace.command("ip", "link", "set", "port0", "master", "br0")
        with pytest.raises(Refuse) as caught:
            host.create_network("n1", None, [BLUE_POOL], mode="macvlan", **options)
        assert message in str(caught.value)
        nothing_is_left(host, store)

    def test_an_empty_one_is_none(self, host: OneHost) -> None:
        host.create_network("n1", None, [BLUE_POOL], mode="macvlan", parent="")
        assert [name[:4] for name in devices(host)] == ["sli-"]

    def test_auto_is_where_the_default_route_points(self, namespace: NetworkNamespace, host: OneHost) -> None:
        namespace.command("ip", "route", "add", "default", "via", "10.9.0.254")
        host.create_network("n1", None, [BLUE_POOL], mode="macvlan", parent="auto")
        network = host.records.network("n1")
        assert network is not None
        assert network.attachment.interface == "under0"

    def test_one_that_is_deleted_and_made_again_carries_containers_again(
        self, namespace: NetworkNamespace, host: OneHost
    ) -> None:
        host.create_network("n1", None, [BLUE_POOL], mode="macvlan", parent="under0")
        host.create_endpoint("n1", "e1", "192.168.10.5/24")
        with attentive(host):
            namespace.command("ip", "link", "del", "under0")
            wait_until(lambda: "under0 is not there" in str(status(host, "lan.192.168.10.0-24")["trouble"]))
            with pytest.raises(Retry, match="under0 is not there"):
                host.service.join("n1", "e1", "")
            namespace.command("ip", "link", "add", "under0", "type", "veth", "peer", "name", "wire0")
            namespace.command("ip", "link", "set", "under0", "up")
            wait_until(lambda: status(host, "lan.192.168.10.0-24")["trouble"] is None)
            host.service.join("n1", "e1", "")
        assert devices(host) == ["sle-e1"]

    def test_one_that_is_renamed_is_told(self, namespace: NetworkNamespace, host: OneHost) -> None:
        host.create_network("n1", None, [BLUE_POOL], mode="macvlan", parent="under0")
        with attentive(host):
            namespace.command("ip", "link", "set", "under0", "down")
            wait_until(lambda: "under0 is down" in str(status(host, "lan.192.168.10.0-24")["trouble"]))
            namespace.command("ip", "link", "set", "under0", "name", "lan7")
            wait_until(lambda: "is called lan7 now" in str(status(host, "lan.192.168.10.0-24")["trouble"]))
            namespace.command("ip", "link", "set", "lan7", "name", "under0")
            namespace.command("ip", "link", "set", "under0", "up")
            wait_until(lambda: status(host, "lan.192.168.10.0-24")["trouble"] is None)


class TestHostAccess:
    NAME = "lan.192.168.10.0-24"

    def test_the_host_has_a_place_beside_its_containers_and_gives_all_of_it_back(
        self,
        namespace: NetworkNamespace,
        host: OneHost,
        store: SqliteStore,
        new_namespace: Callable[[], NetworkNamespace],
    ) -> None:
        machine = new_namespace()
        machine.take("wire0", of=namespace)
        machine.command("ip", "link", "set", "wire0", "up")
        before = namespace.json("ip", "-j", "route") + namespace.json("ip", "-j", "-6", "route")
        pools = [grant(host, "192.168.10.0/24", "192.168.10.128/25"), grant(host, str(BLUE6))]
        host.create_network("n1", None, BLUE_POOLS, mode="macvlan", parent="under0", host_access="true")
        (own,) = devices(host)
        (shown,) = namespace.json("ip", "-j", "addr", "show", "dev", own, "scope", "global")
        addresses = {each["local"]: each["prefixlen"] for each in shown["addr_info"]}
        four, six = sorted(addresses, key=lambda text: ip_address(text).version)
        assert addresses == {four: 32, six: 128}
        assert ip_address(four) in ip_network("192.168.10.128/25")
        # The host has no address in these subnets of its own, so it reaches all of them through its child.
        assert our_routes(namespace) == {"192.168.10.0/24": own}
        assert our_routes(namespace, "-6") == {str(BLUE6): own}
        (route,) = namespace.json("ip", "-j", "route", "get", "192.168.10.77")
        assert (route["dev"], route["prefsrc"]) == (own, four)
        for text in (four, six):
            held = store.get(keys.endpoint(self.NAME, ip_address(text)))
            assert held is not None
            assert codec.decode_endpoint(held).endpoint_id == host_access.endpoint_id(self.NAME)
        with pytest.raises(Refuse, match=r"is held by the host a itself \(host_access\)"):
            host.create_endpoint("n1", "e1", f"{four}/24")
        host.service.delete_network("n1")
        for pool in pools:
            host.ipam.release_pool(pool)
        nothing_is_left(host, store)
        assert namespace.json("ip", "-j", "route") + namespace.json("ip", "-j", "-6", "route") == before

    def test_in_a_subnet_of_the_host_only_its_own_containers_are_reached_through_its_child(
        self, namespace: NetworkNamespace, host: OneHost, store: SqliteStore
    ) -> None:
        lan = NetworkPool(ip_network("10.9.0.0/24"), ip_address("10.9.0.254"))
        host.create_network("n1", "lan", [lan], mode="macvlan", parent="under0", host_access="10.9.0.250")
        (own,) = devices(host)
        assert our_routes(namespace) == {}
        there = ip_address("10.9.0.66")
        store.commit(
            [], [Put(keys.endpoint("lan", there), codec.encode_endpoint(Endpoint("lan", there, None, "b", "e9")))]
        )
        host.create_endpoint("n1", "e1", "10.9.0.65/24")
        host.service.join("n1", "e1", "")
        assert our_routes(namespace) == {"10.9.0.65": own}
        host.service.delete_endpoint("n1", "e1")
        wait_until(lambda: our_routes(namespace) == {})
        host.service.delete_network("n1")
        assert devices(host) == []
        assert host.records.endpoints() == []

    def test_it_is_there_again_after_a_restart_and_can_be_removed_then(
        self, namespace: NetworkNamespace, store: SqliteStore, tmp_path: Path
    ) -> None:
        with OneHost(store, tmp_path) as host:
            host.create_network("n1", None, [BLUE_POOL], mode="macvlan", parent="under0", host_access="true")
            (own,) = devices(host)
            host.create_endpoint("n1", "e1", "192.168.10.5/24")
        namespace.command("ip", "link", "del", own)
        with OneHost(store, tmp_path) as host:
            settled(host, self.NAME)
            assert devices(host) == [own]
            assert our_routes(namespace) == {"192.168.10.0/24": own, "192.168.10.5": own}
            host.service.delete_network("n1")
            nothing_is_left(host, store)

    def test_a_route_follows_when_the_host_gets_an_address_in_the_subnet(
        self, namespace: NetworkNamespace, host: OneHost
    ) -> None:
        host.create_network("n1", None, [BLUE_POOL], mode="macvlan", parent="under0", host_access="true")
        (own,) = devices(host)
        with attentive(host):
            assert our_routes(namespace) == {"192.168.10.0/24": own}
            namespace.command("ip", "addr", "add", "192.168.10.2/24", "dev", "under0")
            wait_until(lambda: our_routes(namespace) == {})
            namespace.command("ip", "addr", "del", "192.168.10.2/24", "dev", "under0")
            wait_until(lambda: our_routes(namespace) == {"192.168.10.0/24": own})

    def test_the_address_of_a_host_that_was_as_fast_is_not_taken_twice(
        self, host: OneHost, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Docker's own IPAM: two hosts see the same free address, and only one can have it."""
        last = ip_address("192.168.10.254")
        claim = host.segments.claim

        def overtaken(endpoints: Sequence[Endpoint], takes_over: Callable[[Endpoint], bool]) -> None:
            theirs = Endpoint(self.NAME, last, None, "b", host_access.endpoint_id(self.NAME))
            store.commit([], [Put(keys.endpoint(self.NAME, last), codec.encode_endpoint(theirs))])
            claim(endpoints, takes_over)

        monkeypatch.setattr(host.segments, "claim", overtaken)
        host.create_network("n1", None, [BLUE_POOL], mode="macvlan", parent="under0", host_access="true")
        assert [str(each) for endpoint in host.records.endpoints() for each in endpoint.addresses] == ["192.168.10.253"]
        theirs = host.segments.endpoint(self.NAME, last)
        assert theirs is not None
        assert theirs.host == "b"

    def test_an_address_that_was_asked_for_and_is_taken_is_refused(self, host: OneHost, store: SqliteStore) -> None:
        there = ip_address("192.168.10.9")
        theirs = Endpoint(self.NAME, there, None, "b", "e9")
        store.commit([], [Put(keys.endpoint(self.NAME, there), codec.encode_endpoint(theirs))])
        with pytest.raises(Refuse, match="is held by endpoint e9 on host b"):
            host.create_network("n1", None, [BLUE_POOL], mode="macvlan", parent="under0", host_access="192.168.10.9")
        assert host.records.networks() + host.records.endpoints() + host.records.debts() == []

    @pytest.mark.parametrize("first", ["true", "false"])
    def test_a_host_has_one_place_on_a_segment_and_the_first_network_says_so(
        self, host: OneHost, store: SqliteStore, first: str
    ) -> None:
        host.create_network("n1", "lan", [BLUE_POOL], mode="macvlan", parent="under0", host_access=first)
        before = {entry.key: entry.value for entry in store.range("/").entries}
        with pytest.raises(Refuse, match=r"option host_access=.*network n1 of this host is on segment lan already"):
            host.create_network("n2", "lan", [BLUE_POOL], mode="macvlan", parent="under0", host_access="true")
        assert {entry.key: entry.value for entry in store.range("/").entries} == before
        host.service.delete_network("n1")
        nothing_is_left(host, store)

    def test_networks_of_a_segment_share_the_hosts_place_until_the_one_that_brought_it_goes(
        self, namespace: NetworkNamespace, host: OneHost, store: SqliteStore
    ) -> None:
        host.create_network("n1", "lan", [BLUE_POOL], mode="macvlan", parent="under0", host_access="true")
        (own,) = devices(host)
        host.create_network("n2", "lan", [BLUE_POOL], mode="macvlan", parent="under0")
        host.create_endpoint("n2", "e2", "192.168.10.5/24")
        wait_until(lambda: our_routes(namespace) == {"192.168.10.0/24": own, "192.168.10.5": own})
        host.service.delete_network("n1")
        wait_until(lambda: devices(host) == [])
        assert our_routes(namespace) == {}
        host.service.delete_network("n2")
        nothing_is_left(host, store)

    @pytest.mark.parametrize(
        "step",
        [
            "ipam._automatic.claim",
            "records.remember_network",
            "records.remember_endpoint",
            "segments.claim",
            "networks._follow",
            "networks._created",
        ],
    )
    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_failure_at_any_step_gives_everything_back(
        self, host: OneHost, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, step: str, when: str
    ) -> None:
        pool = grant(host, "192.168.10.0/24")
        *path, name = step.split(".")
        whose: object = host
        for part in path:
            whose = getattr(whose, part)
        works = getattr(whose, name)

        def fails(*arguments: object) -> None:
            if when == "after":
                works(*arguments)
            raise Broken("on purpose")

        monkeypatch.setattr(whose, name, fails)
        with pytest.raises(Broken, match="on purpose"):
            host.create_network("n1", None, [BLUE_POOL], mode="macvlan", parent="under0", host_access="true")
        monkeypatch.undo()
        host.ipam.release_pool(pool)
        wait_until(lambda: devices(host) == [])
        assert host.peers.following(self.NAME) is None
        nothing_is_left(host, store)


class TestSegments:
    def test_a_network_that_is_refused_does_not_change_by_what_the_host_is_reached(
        self, namespace: NetworkNamespace, host: OneHost, store: SqliteStore
    ) -> None:
        namespace.command("ip", "link", "set", "wire0", "up")
        namespace.command("ip", "addr", "add", "10.8.0.1/24", "dev", "wire0")
        host.create_network("n1", vni="42")
        with pytest.raises(Refuse, match="with other values"):
            host.create_network("n2", parent="wire0")
        assert vteps(store) == {"a": ["10.9.0.1"]}
        host.create_network("m1", "lan", [BLUE_POOL], mode="macvlan", parent="under0", mtu="1400")
        with pytest.raises(Refuse, match=r"with other values \(parent under0 instead of wire0, mtu 1400 instead of N"):
            host.create_network("m2", "lan", [BLUE_POOL], mode="macvlan", parent="wire0")

    def test_a_subnet_that_a_later_network_added_is_the_segments_also_after_a_restart(
        self, namespace: NetworkNamespace, store: SqliteStore, tmp_path: Path
    ) -> None:
        for order in (("1", "2"), ("4", "3")):  # whatever the order in which the records are read
            with OneHost(store, tmp_path) as host:
                host.create_network(order[0], "lan", [BLUE_POOL], mode="macvlan", parent="under0")
                host.create_network(order[1], "lan", [NetworkPool(BLUE6)], mode="macvlan", parent="under0")
                following = host.peers.following("lan")
                assert following is not None
                assert following.segment.pools == (BLUE, BLUE6)
            with OneHost(store, tmp_path) as host:
                following = host.peers.following("lan")
                assert following is not None
                assert following.segment.pools == (BLUE, BLUE6)
                for network in order:
                    host.service.delete_network(network)

    def test_an_underlay_that_is_renumbered_is_where_the_vtep_is(
        self, namespace: NetworkNamespace, host: OneHost, store: SqliteStore
    ) -> None:
        host.create_network("n1", vni="42")
        with attentive(host):
            namespace.command("ip", "addr", "add", "10.9.0.7/24", "dev", "under0")
            namespace.command("ip", "addr", "add", "10.9.0.8/24", "dev", "under0")
            namespace.command("ip", "addr", "del", "10.9.0.1/24", "dev", "under0")
            namespace.command("ip", "addr", "replace", "10.9.0.7/24", "dev", "under0")
            wait_until(lambda: vteps(store) == {"a": ["10.9.0.7"]})
            wait_until(lambda: "local 10.9.0.7" in namespace.command("ip", "-d", "link", "show", "slx-42"))
        kept = host.records.network("n1")
        assert kept is not None
        assert [str(each) for each in kept.attachment.underlay] == ["10.9.0.7"]
        settled(host, "blue")

    def test_a_network_that_goes_while_the_host_is_renumbered_is_not_written_down_again(
        self, namespace: NetworkNamespace, host: OneHost, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host.create_network("n1", vni="42")
        begun, gone = threading.Event(), threading.Event()
        remember = host.records.remember_network

        def slowly(network: Network) -> None:
            begun.set()
            gone.wait(0.5)  # the removal gets its chance, and has to wait for us
            remember(network)

        monkeypatch.setattr(host.records, "remember_network", slowly)
        with attentive(host):
            namespace.command("ip", "addr", "replace", "10.9.0.7/32", "dev", "under0")
            namespace.command("ip", "addr", "del", "10.9.0.1/24", "dev", "under0")
            assert begun.wait(20)
            host.service.delete_network("n1")
            gone.set()
        nothing_is_left(host, store)

    def test_another_host_sees_where_this_one_is_reached(
        self, namespace: NetworkNamespace, host: OneHost, store: SqliteStore
    ) -> None:
        """A member record that says otherwise than this host does is put right when the store is seen again."""
        host.create_network("n1", vni="42")
        wrong = Member("blue", "a", (ip_address("10.9.0.99"),), ("n1",))
        store.commit([], [Put(keys.member("blue", "a"), codec.encode_member(wrong))])
        following = host.peers.following("blue")
        assert following is not None
        wait_until(lambda: following.underlay_of("a") == wrong.underlay)
        host.networks.restore(following)
        assert vteps(store) == {"a": ["10.9.0.1"]}
