"""What must never happen, sent all the same: each has its own answer, in JSON, and the door stays open."""

import contextlib
import io
import json
import socket

import pytest

from protocol.conftest import Door
from protocol.fake_driver import FakeIpamDriver, FakeNetworkDriver
from protocol.unix_http import ACCEPT, HEADERS, Connection, Reply, call
from spanlan.libnetwork.app import create_app
from spanlan.libnetwork.server import Server

IDS = {"NetworkID": "a" * 64, "EndpointID": "b" * 64}
NEEDS_BODY = [
    "NetworkDriver.AllocateNetwork",
    "NetworkDriver.FreeNetwork",
    "NetworkDriver.CreateNetwork",
    "NetworkDriver.DeleteNetwork",
    "NetworkDriver.CreateEndpoint",
    "NetworkDriver.DeleteEndpoint",
    "NetworkDriver.EndpointOperInfo",
    "NetworkDriver.Join",
    "NetworkDriver.Leave",
    "NetworkDriver.ProgramExternalConnectivity",
    "NetworkDriver.RevokeExternalConnectivity",
    "IpamDriver.RequestPool",
    "IpamDriver.ReleasePool",
    "IpamDriver.RequestAddress",
    "IpamDriver.ReleaseAddress",
]
FIXED = [
    "Plugin.Activate",
    "NetworkDriver.GetCapabilities",
    "NetworkDriver.GwAllocCheck",
    "NetworkDriver.DiscoverNew",
    "NetworkDriver.DiscoverDelete",
    "IpamDriver.GetCapabilities",
    "IpamDriver.GetDefaultAddressSpaces",
]


def raw(door: Door, method: str, body: bytes, **how: object) -> Reply:
    connection = Connection(door.path)
    try:
        return connection.send_raw(f"/{method}", body, **how)  # type: ignore[arg-type]
    finally:
        connection.close()


@pytest.mark.parametrize("method", NEEDS_BODY)
def test_an_empty_body_is_refused_and_the_reason_is_given(door, method):
    reply = call(door.path, method)
    assert reply.status == 200
    assert "dockerd repeated the request without its content" in reply.error
    assert door.driver.calls == door.ipam.calls == 0


@pytest.mark.parametrize("method", FIXED)
@pytest.mark.parametrize("body", [b"", b"null", b"{}", b"what?"])
def test_fixed_answers_do_not_depend_on_the_body_or_the_drivers(door, method, body):
    reply = raw(door, method, body)
    assert reply.status == 200
    assert reply.error is None
    assert door.driver.calls == door.ipam.calls == 0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b"[" * 200_000, "not valid JSON"),
        (b'{"NetworkID":' + b"9" * 10_000 + b"}", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'"CreateNetwork"', "must be a JSON object"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(door, body, words):
    reply = raw(door, "NetworkDriver.CreateNetwork", body)
    assert reply.status == 200
    assert words in reply.error
    assert len(reply.raw) < 1000
    assert door.outcomes("NetworkDriver.CreateNetwork") == ["refuse"]


@pytest.mark.parametrize("verb", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_a_wrong_verb_is_refused_and_the_right_one_named(door, verb):
    reply = raw(door, "NetworkDriver.Join", b"", verb=verb)
    assert reply.status == 405
    assert reply.error == f"/NetworkDriver.Join must be sent with POST, not {verb}"
    assert reply.headers["Allow"] == "POST"
    assert reply.headers["Content-Type"] == ACCEPT


@pytest.mark.parametrize("method", ["NetworkDriver.Dance", "VolumeDriver.Mount", "", "NetworkDriver.Join/", "%2e%2e/x"])
def test_an_unknown_method_is_not_found_and_named(door, method):
    reply = raw(door, method, b"{}")
    assert reply.status == 404
    assert "spanlan does not know the method" in reply.error
    assert door.seen == [("unknown", "unknown")]


@pytest.mark.parametrize("size", [(1 << 20) + 1, 10 << 20])
def test_a_body_over_the_limit_is_refused_without_being_read(door, size):
    reply = raw(door, "NetworkDriver.CreateNetwork", b" " * size)
    assert reply.status == 413
    assert "Too Large" in reply.error
    assert door.driver.calls == 0


def test_a_body_over_the_limit_is_refused_as_soon_as_it_is_announced(door):
    """Not a byte of the 10 GB is sent before the answer comes."""
    connection = Connection(door.path)
    connection.putrequest("POST", "/NetworkDriver.Join", skip_host=True)
    connection.putheader("Content-Length", str(10 << 30))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_a_chunked_body_over_the_limit_is_refused(door):
    connection = Connection(door.path)
    with contextlib.suppress(BrokenPipeError):
        connection.request(
            "POST", "/NetworkDriver.Join", body=iter([b" " * 65536] * 100), headers=HEADERS, encode_chunked=True
        )
    assert connection.getresponse().status == 413
    connection.close()


def test_a_body_of_just_the_limit_is_read(door):
    body = json.dumps(IDS).encode()
    reply = raw(door, "NetworkDriver.Leave", body + b" " * ((1 << 20) - len(body)))
    assert (reply.status, reply.body) == (200, {})


def test_what_is_no_http_at_all_gets_an_answer_too(door):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(door.path))
        connection.sendall(b"GIMME\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.0 400")
    assert b'"Err":' in answer


def test_headers_without_end_are_refused(door):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(door.path))
        connection.sendall(b"POST /NetworkDriver.Join HTTP/1.1\r\nX: " + b"y" * 40_000)
        answer = connection.recv(65536)  # and not more: what was not read here resets the connection
    assert b"431" in answer.splitlines()[0]


def test_no_header_names_the_server(door):
    reply = call(door.path, "Plugin.Activate")
    assert set(reply.headers) == {"Content-Length", "Content-Type", "Date"}


def test_an_error_nobody_expected_is_logged_with_its_traceback_and_told_by_number(door, caplog):
    def fall(network_id: str) -> None:
        raise ZeroDivisionError("the secret of the house")

    door.driver.delete_network = fall
    reply = call(door.path, "NetworkDriver.DeleteNetwork", IDS)
    assert reply.status == 200
    assert "internal error in NetworkDriver.DeleteNetwork" in reply.error
    assert "secret" not in reply.error
    number = reply.error.rpartition("(")[2].rstrip(")")
    record = next(record for record in caplog.records if number in record.getMessage())
    assert record.exc_info[0] is ZeroDivisionError
    assert door.outcomes("NetworkDriver.DeleteNetwork") == ["internal"]


def test_a_handler_that_wants_to_end_the_process_ends_nothing(door):
    def leave(network_id: str, endpoint_id: str) -> None:
        raise SystemExit(3)

    door.driver.leave = leave
    assert "SystemExit" in call(door.path, "NetworkDriver.Leave", IDS).error
    assert call(door.path, "NetworkDriver.DeleteEndpoint", IDS).body == {}


def test_an_observer_that_fails_does_not_fail_the_request(tmp_path):
    def observe(*_: object) -> None:
        raise RuntimeError("the scale is broken")

    server = Server(create_app(FakeNetworkDriver(), FakeIpamDriver(), observe=observe), tmp_path / "door.sock")
    server.start()
    try:
        assert call(tmp_path / "door.sock", "Plugin.Activate").status == 200
    finally:
        server.stop()


@pytest.mark.parametrize("method", ["DeleteNetwork", "DeleteEndpoint", "Leave", "RevokeExternalConnectivity"])
def test_removing_what_is_gone_is_success(door, method):
    assert call(door.path, f"NetworkDriver.{method}", IDS).body == {}


@pytest.mark.parametrize("method", ["ReleasePool", "ReleaseAddress"])
def test_releasing_what_is_gone_is_success(door, method):
    assert call(door.path, f"IpamDriver.{method}", {"PoolID": "pool/10.9.0.0/24", "Address": "10.9.0.1"}).body == {}


def test_joining_what_is_gone_is_an_error(door):
    call(door.path, "NetworkDriver.CreateNetwork", IDS)
    reply = call(door.path, "NetworkDriver.Join", {**IDS, "SandboxKey": "/var/run/docker/netns/1"})
    assert reply.error == f"no endpoint {'b' * 64}"
    assert door.outcomes("NetworkDriver.Join") == ["gone"]


def test_ports_that_nobody_publishes_are_logged_and_do_not_stop_the_container(door, caplog):
    ports = {"com.docker.network.portmap": [{"Proto": 6, "Port": 80, "HostPort": 8080}]}
    reply = call(door.path, "NetworkDriver.ProgramExternalConnectivity", {**IDS, "Options": ports})
    assert reply.body == {}
    assert "1 published ports are not programmed" in caplog.text


def test_a_swarm_manager_gets_the_users_options_back(door):
    request = {"NetworkID": "u82xqwoqslwtw4xvq246ynhj6", "Options": {"vni": "61"}, "IPv4Data": [], "IPv6Data": None}
    assert call(door.path, "NetworkDriver.AllocateNetwork", request).body == {"Options": {"vni": "61"}}
    assert call(door.path, "NetworkDriver.FreeNetwork", request).body == {}


def test_nothing_is_written_to_the_disk_for_a_body(door, monkeypatch):
    """waitress keeps large bodies in temporary files unless told otherwise."""
    opened: list[object] = []

    def temporary_file(*how: object) -> io.BytesIO:
        opened.append(how)
        return io.BytesIO()

    monkeypatch.setattr("tempfile.TemporaryFile", temporary_file)
    body = json.dumps(IDS).encode()
    assert raw(door, "NetworkDriver.Leave", body + b" " * 900_000).status == 200
    assert opened == []
