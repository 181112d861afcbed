"""Every request that real engines sent, sent again.

``conversations.jsonl`` holds 860 requests of dockerd 20.10 (plain engines, crashes and restarts of both sides, a swarm
with a managed plugin), with the answers that a first prototype gave, in the order in which they came.  They are
replayed byte for byte against the real server.  Where a request names a pool or an address that the prototype had
chosen, the one that was chosen here takes its place.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from protocol.conftest import Door, opened
from protocol.fake_driver import FakeNetworkDriver
from protocol.unix_http import ACCEPT, Connection, Reply
from spanlan.model.request import EndpointRequest, NetworkRequest

RECORDED = Path(__file__).with_name("conversations.jsonl")

# What dockerd decodes from the answers (moby, daemon/libnetwork/drivers/remote/api and ipams/remote/api).
READ_BY_DOCKERD = {
    "/Plugin.Activate": {"Implements"},
    "/NetworkDriver.GetCapabilities": {"Scope", "ConnectivityScope"},
    "/NetworkDriver.AllocateNetwork": {"Options"},
    "/NetworkDriver.CreateEndpoint": {"Interface"},
    "/NetworkDriver.EndpointOperInfo": {"Value"},
    "/NetworkDriver.Join": {"InterfaceName", "DisableGatewayService"},
    "/IpamDriver.GetCapabilities": {"RequiresMACAddress", "RequiresRequestReplay"},
    "/IpamDriver.GetDefaultAddressSpaces": {"LocalDefaultAddressSpace", "GlobalDefaultAddressSpace"},
    "/IpamDriver.RequestPool": {"PoolID", "Pool", "Data"},
    "/IpamDriver.RequestAddress": {"Address", "Data"},
}
# The requests of these come without a body; every other empty body is a repetition whose content was lost.
BODILESS = {
    "/Plugin.Activate",
    "/NetworkDriver.GetCapabilities",
    "/IpamDriver.GetCapabilities",
    "/IpamDriver.GetDefaultAddressSpaces",
}


@dataclass
class Exchange:
    path: str
    sent: Any
    reply: Reply


@dataclass
class Replay:
    """Sends recorded requests; knows what the prototype's pools and addresses are called here."""

    connection: Connection
    pools: dict[str, str] = field(default_factory=dict)
    addresses: dict[tuple[str, str], str] = field(default_factory=dict)

    def send(self, record: dict[str, Any]) -> Exchange:
        body = self._translate(record["path"], record["body"])
        raw = b"" if body is None else encode(body)
        headers = {**record["headers"], "Content-Length": str(len(raw))}
        reply = self.connection.send_raw(record["path"], raw, headers=headers)
        self._learn(record, body, reply)
        return Exchange(record["path"], body, reply)

    def _translate(self, path: str, body: Any) -> Any:
        if body is None or "PoolID" not in body:
            return body
        address = body.get("Address")
        if path == "/IpamDriver.ReleaseAddress":
            address = self.addresses.get((body["PoolID"], address), address)
        pool = self.pools.get(body["PoolID"], body["PoolID"])
        return {name: {"PoolID": pool, "Address": address}.get(name, value) for name, value in body.items()}

    def _learn(self, record: dict[str, Any], body: Any, reply: Reply) -> None:
        recorded = record["response"] or {}
        if record["path"] == "/IpamDriver.RequestPool" and "PoolID" in recorded and "PoolID" in reply.body:
            self.pools[recorded["PoolID"]] = reply.body["PoolID"]
        if record["path"] == "/IpamDriver.RequestAddress" and "Address" in recorded and "Address" in reply.body:
            was = recorded["Address"].partition("/")[0]
            self.addresses[record["body"]["PoolID"], was] = reply.body["Address"].partition("/")[0]


def encode(body: Any) -> bytes:
    """As Go's encoder does."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


@cache
def recorded() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RECORDED.read_text().splitlines()]


@dataclass
class Told:
    door: Door
    exchanges: list[Exchange]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """All of it, told once."""
    with opened(tmp_path_factory.mktemp("told") / "door.sock") as door:
        yield Told(door, replay_all(door))


def replay_all(door: Door) -> list[Exchange]:
    replay = Replay(Connection(door.path))
    try:
        return [replay.send(record) for record in recorded()]
    finally:
        replay.connection.close()


def test_the_recorded_bodies_are_reproduced_to_the_byte():
    assert len(recorded()) == 860
    for record in recorded():
        raw = b"" if record["body"] is None else encode(record["body"])
        assert len(raw) == int(record["headers"]["Content-Length"])
        assert record["headers"]["Host"] == ""
        assert "Content-Type" not in record["headers"]
        assert record["headers"]["Accept"] == ACCEPT


def test_every_recorded_request_is_answered_with_200_and_json(told):
    for exchange in told.exchanges:
        assert exchange.reply.status == 200
        assert exchange.reply.headers["Content-Type"] == ACCEPT
        assert isinstance(exchange.reply.body, dict)


def test_only_lost_bodies_and_networks_of_another_time_are_refused(told):
    refusals = [exchange for exchange in told.exchanges if exchange.reply.error is not None]
    empty = [exchange for exchange in refusals if exchange.sent is None]
    assert len(empty) == 5
    assert all("no body" in (exchange.reply.error or "") for exchange in empty)
    others = {(exchange.path, exchange.reply.error) for exchange in refusals if exchange.sent is not None}
    assert others == set()


def test_no_empty_body_gets_past_the_door(told):
    for exchange in told.exchanges:
        if exchange.sent is None and exchange.path not in BODILESS:
            assert "repeated the request without its content" in (exchange.reply.error or "")


def test_replies_contain_what_dockerd_reads_and_nothing_else(told):
    for exchange in told.exchanges:
        if exchange.reply.error is None:
            assert set(exchange.reply.body) == READ_BY_DOCKERD.get(exchange.path, set())


def test_interface_fields_that_dockerd_supplied_are_never_echoed(told):
    supplied = 0
    for exchange in told.exchanges:
        if exchange.path == "/NetworkDriver.CreateEndpoint" and exchange.reply.error is None:
            given = {name for name, value in exchange.sent["Interface"].items() if value}
            answered = {name for name, value in exchange.reply.body["Interface"].items() if value}
            assert not given & answered
            assert answered == {"MacAddress"} - given
            supplied += "MacAddress" in given
    assert supplied == 4


def test_a_join_names_a_link_and_never_static_routes(told):
    names = set()
    for exchange in told.exchanges:
        if exchange.path == "/NetworkDriver.Join" and exchange.reply.error is None:
            name = exchange.reply.body["InterfaceName"]
            assert name["DstPrefix"] == "eth"
            assert 0 < len(name["SrcName"].encode()) <= 15
            names.add(name["SrcName"])
    assert len(names) > 90


def test_addresses_are_answered_in_cidr_notation(told):
    for exchange in told.exchanges:
        if exchange.path == "/IpamDriver.RequestAddress":
            address, slash, length = exchange.reply.body["Address"].partition("/")
            assert slash
            assert length.isdecimal()
            if exchange.sent["Address"]:
                assert address == exchange.sent["Address"]


def test_what_users_wrote_arrives_parsed(told):
    networks = [request for request in told.door.driver.requests if isinstance(request, NetworkRequest)]
    endpoints = [request for request in told.door.driver.requests if isinstance(request, EndpointRequest)]
    assert {len(network.network_id) for network in networks} == {25, 64}
    assert any(network.options == {"parent": "eth0.10", "mode": "macvlan"} for network in networks)
    assert any(network.internal for network in networks)
    assert any(str(pool.cidr) == "0.0.0.0/0" and pool.gateway is None for n in networks for pool in n.pools)
    assert any("rtr" in pool.auxiliary for network in networks for pool in network.pools)
    assert any(len(network.pools) > 1 for network in networks)
    assert [e.options for e in endpoints if e.options] == [{"com.lab.qos": "gold"}]
    assert any(endpoint.address is None for endpoint in endpoints)
    assert any(endpoint.address6 is not None for endpoint in endpoints)


def test_the_whole_story_told_twice_changes_nothing(door):
    """dockerd repeats requests that took effect already: the second telling is answered like the first."""
    first = [(exchange.path, exchange.reply.error) for exchange in replay_all(door)]
    assert isinstance(door.driver, FakeNetworkDriver)
    assert [(exchange.path, exchange.reply.error) for exchange in replay_all(door)] == first
