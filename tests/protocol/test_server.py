"""The socket, its file, the threads behind it and the end of it."""

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from protocol.conftest import StuckDriver
from protocol.fake_driver import FakeIpamDriver, FakeNetworkDriver
from protocol.unix_http import Connection, call
from spanlan import deadline
from spanlan.errors import Broken, Refuse, Retry
from spanlan.libnetwork.app import create_app
from spanlan.libnetwork.server import Server

IDS = {"NetworkID": "a" * 64, "EndpointID": "b" * 64}
JOIN = {**IDS, "SandboxKey": "/var/run/docker/netns/0123456789ab"}


def new_server(path: Path) -> Server:
    return Server(create_app(FakeNetworkDriver(), FakeIpamDriver()), path)


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    ends_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_at, "it did not come about"
        time.sleep(0.005)


def prepare(driver: StuckDriver, path: Path) -> None:
    assert call(path, "NetworkDriver.CreateNetwork", IDS).body == {}
    assert call(path, "NetworkDriver.CreateEndpoint", IDS).error is None


# --- the file ---------------------------------------------------------------------------------------------------------


def test_only_the_owner_may_connect_whatever_the_umask(open_door, monkeypatch):
    # Not even for a moment: nobody changes the mode afterwards.
    monkeypatch.setattr(os, "chmod", None)
    before = os.umask(0)
    try:
        door = open_door()
    finally:
        os.umask(before)
    assert stat.S_IMODE(door.path.stat().st_mode) == 0o600


def test_the_directory_of_the_socket_is_made(tmp_path):
    path = tmp_path / "run" / "docker" / "plugins" / "spanlan.sock"
    server = new_server(path)
    server.start()
    assert call(path, "Plugin.Activate").status == 200
    server.stop()
    assert not path.exists()


def test_a_second_server_on_the_same_path_refuses_to_start_and_does_no_harm(door):
    with pytest.raises(Refuse, match="another process answers on"):
        new_server(door.path).start()
    assert call(door.path, "Plugin.Activate").status == 200


def test_of_many_servers_that_start_at_once_one_wins(tmp_path):
    path = tmp_path / "door.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    servers = [new_server(path) for _ in range(6)]

    def start(server: Server) -> bool:
        try:
            server.start()
        except Refuse:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        started = list(pool.map(start, servers))
    try:
        assert started.count(True) == 1
        assert call(path, "Plugin.Activate").status == 200
    finally:
        for server in servers:
            server.stop()


def test_a_socket_whose_process_was_killed_is_replaced(tmp_path):
    path = tmp_path / "door.sock"
    script = f"import socket, os; s = socket.socket(socket.AF_UNIX); s.bind({str(path)!r}); s.listen(); os._exit(9)"
    subprocess.run([sys.executable, "-c", script], check=False)
    assert path.is_socket()
    server = new_server(path)
    server.start()
    try:
        assert call(path, "Plugin.Activate").status == 200
    finally:
        server.stop()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "door.sock"
    path.write_text("precious")
    with pytest.raises(Refuse, match="is not a socket"):
        new_server(path).start()
    assert path.read_text() == "precious"


def test_a_path_too_long_for_a_socket_is_refused_by_name(tmp_path):
    with pytest.raises(Refuse, match="too long: Unix sockets take at most 107 bytes"):
        new_server(tmp_path / ("x" * 120)).start()


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Broken, match=r"cannot listen on .*/file/door\.sock: .*check SPANLAN_SOCKET"):
        new_server(tmp_path / "file" / "door.sock").start()


def test_a_file_that_became_anothers_is_not_removed(door):
    door.path.unlink()
    other = socket.socket(socket.AF_UNIX)
    other.bind(str(door.path))
    door.server.stop()
    assert door.path.is_socket()
    other.close()


def test_a_directory_that_vanished_does_not_keep_the_server_from_stopping(tmp_path):
    path = tmp_path / "plugins" / "door.sock"
    server = new_server(path)
    server.start()
    path.unlink()
    path.parent.rmdir()
    server.stop()
    assert not server.serving


def test_a_socket_handed_over_by_systemd_is_served_and_its_file_kept(tmp_path):
    path = tmp_path / "door.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    script = """
import os, sys
from pathlib import Path
os.dup2(int(sys.argv[2]), 3)  # where systemd puts the first socket
os.environ["LISTEN_PID"] = str(os.getpid())
from spanlan.libnetwork.app import create_app
from spanlan.libnetwork.server import Server
server = Server(create_app(None, None), Path(sys.argv[1]))
server.start()
assert "LISTEN_FDS" not in os.environ
print("ready", flush=True)
sys.stdin.read()
server.stop()
"""
    environment = {**os.environ, "LISTEN_FDS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path), str(listener.fileno())],
        env=environment,
        pass_fds=[listener.fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert call(path, "Plugin.Activate").status == 200
        process.communicate(timeout=20)
        assert process.returncode == 0
    assert path.is_socket()
    listener.close()


def test_a_server_can_be_followed_by_another_on_the_same_path(tmp_path):
    path = tmp_path / "door.sock"
    for _ in range(3):
        server = new_server(path)
        server.start()
        assert call(path, "Plugin.Activate").status == 200
        server.stop()
        server.stop()
        assert not path.exists()


# --- clients ----------------------------------------------------------------------------------------------------------


def test_fifty_clients_at_once_are_all_answered(open_door):
    door = open_door(size=64, line=64)
    call(door.path, "NetworkDriver.CreateNetwork", IDS)

    def client(number: int) -> list[str | None]:
        connection = Connection(door.path)
        ids = {**IDS, "EndpointID": f"{number:064x}"}
        errors = [
            connection.call("NetworkDriver.CreateEndpoint", ids).error,
            connection.call("NetworkDriver.Join", {**ids, "SandboxKey": "/s"}).error,
            connection.call("NetworkDriver.Leave", ids).error,
            connection.call("NetworkDriver.DeleteEndpoint", ids).error,
        ]
        connection.close()
        return errors

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(client, range(50))) == [[None] * 4] * 50
    assert door.driver.endpoints == {}


def test_a_client_that_sends_half_a_request_holds_up_nobody(open_door):
    door = open_door(size=2, line=2)
    halves = []
    for _ in range(200):
        half = socket.socket(socket.AF_UNIX)
        half.connect(str(door.path))
        half.sendall(b"POST /NetworkDriver.Join HTTP/1.1\r\nHost: \r\nContent-Length: 500\r\n\r\n{")
        halves.append(half)
    assert call(door.path, "NetworkDriver.Leave", IDS, timeout=2).body == {}
    for half in halves:
        half.close()


def test_a_client_that_goes_away_before_its_answer_harms_nobody(open_door, stuck):
    door = open_door(driver=stuck)
    prepare(stuck, door.path)
    connection = Connection(door.path)
    connection.request("POST", "/NetworkDriver.Join", body=json.dumps(JOIN))
    assert stuck.entered.acquire(timeout=10)
    connection.close()
    stuck.let_go.set()
    wait_until(lambda: stuck.sandboxes != {})
    assert call(door.path, "NetworkDriver.Leave", IDS).body == {}


def test_a_connection_is_used_again_and_never_closed_for_being_idle(door):
    connection = Connection(door.path)
    assert connection.call("Plugin.Activate").status == 200
    kept = connection.sock
    # The years in which nothing was asked, as waitress counts them.
    waitress = door.server._waitress
    channel = next(iter(waitress.active_channels.values()))
    channel.last_activity -= 5 * 365 * 86400
    waitress.maintenance(time.time())
    for _ in range(3):
        assert connection.call("NetworkDriver.Leave", IDS).body == {}
        assert connection.sock is kept
    connection.close()


def test_an_error_keeps_the_connection_open(door):
    connection = Connection(door.path)
    connection.connect()
    kept = connection.sock
    assert connection.call("NetworkDriver.Join").error
    assert connection.send_raw("/NetworkDriver.Join", b"{").error
    assert connection.send_raw("/NetworkDriver.Nothing", b"{}").status == 404
    assert connection.call("Plugin.Activate").error is None
    assert connection.sock is kept
    connection.close()


# --- the deadline -----------------------------------------------------------------------------------------------------


def test_a_handler_that_hangs_is_answered_by_the_deadline(open_door, stuck, caplog):
    door = open_door(driver=stuck, limit=1.0)
    prepare(stuck, door.path)
    begun_at = time.monotonic()
    reply = call(door.path, "NetworkDriver.Join", JOIN)
    assert 1.0 <= time.monotonic() - begun_at < 10.0
    assert reply.status == 200
    assert "NetworkDriver.Join was not finished within 1 s" in reply.error
    assert "it waits in spanlan." in reply.error
    assert "StuckDriver" not in reply.error
    assert "let_go.wait" in caplog.text
    assert door.outcomes("NetworkDriver.Join") == ["overdue"]
    # What it does in the end is in the log, because dockerd was told otherwise.
    stuck.let_go.set()
    wait_until(lambda: "ended well" in caplog.text)


def test_whoever_waits_further_in_knows_the_deadline_and_says_it_better(open_door):
    class WaitingDriver(FakeNetworkDriver):
        def leave(self, network_id: str, endpoint_id: str) -> None:
            threading.Event().wait(deadline.remaining(60))
            raise Retry("etcd at h1:2379 does not answer")

    door = open_door(driver=WaitingDriver(), limit=4.0)  # of which it gets 3.8
    assert call(door.path, "NetworkDriver.Leave", IDS).error == "etcd at h1:2379 does not answer"
    assert door.outcomes("NetworkDriver.Leave") == ["retry"]


def test_stuck_handlers_hold_up_nobody_while_there_are_workers(open_door, stuck):
    door = open_door(driver=stuck, limit=5.0, size=4)
    prepare(stuck, door.path)
    with ThreadPoolExecutor(3) as pool:
        joins = [pool.submit(call, door.path, "NetworkDriver.Join", JOIN) for _ in range(3)]
        for _ in joins:
            assert stuck.entered.acquire(timeout=10)
        begun_at = time.monotonic()
        assert call(door.path, "NetworkDriver.EndpointOperInfo", IDS).error is None
        assert time.monotonic() - begun_at < 2.0
        stuck.let_go.set()
        assert [join.result().error for join in joins] == [None] * 3


def test_when_every_worker_is_stuck_the_rest_are_told_so_and_fixed_answers_still_come(open_door, stuck):
    door = open_door(driver=stuck, limit=4.0, size=2, line=1)
    prepare(stuck, door.path)
    with ThreadPoolExecutor(4) as pool:
        joins = [pool.submit(call, door.path, "NetworkDriver.Join", JOIN) for _ in range(2)]
        for _ in joins:
            assert stuck.entered.acquire(timeout=10)
        in_line = pool.submit(call, door.path, "NetworkDriver.Leave", IDS)
        wait_until(lambda: len(door.workers._waiting) == 1)
        begun_at = time.monotonic()
        assert "was not begun: all 2 workers are busy" in call(door.path, "NetworkDriver.Leave", IDS).error
        assert time.monotonic() - begun_at < 2.0
        assert door.outcomes("NetworkDriver.Leave") == ["busy"]
        assert call(door.path, "NetworkDriver.GetCapabilities").body["Scope"] == "local"
        assert "was not begun within 4 s: all 2 workers are busy" in in_line.result().error
        assert all("was not finished" in join.result().error for join in joins)
    # Their places are taken until they end; then all is well again.
    stuck.let_go.set()
    wait_until(lambda: call(door.path, "NetworkDriver.Leave", IDS).error is None)


# --- the end ----------------------------------------------------------------------------------------------------------


def test_a_request_in_flight_is_finished_before_the_server_stops(open_door, stuck):
    door = open_door(driver=stuck)
    prepare(stuck, door.path)
    idle = Connection(door.path)
    assert idle.call("Plugin.Activate").status == 200
    with ThreadPoolExecutor(2) as pool:
        join = pool.submit(call, door.path, "NetworkDriver.Join", JOIN)
        assert stuck.entered.acquire(timeout=10)
        stop = pool.submit(door.server.stop, 10.0)
        wait_until(lambda: not door.path.exists())
        with pytest.raises(OSError, match="No such file"):
            call(door.path, "Plugin.Activate")
        assert not stop.done()
        stuck.let_go.set()
        assert join.result().body["InterfaceName"]["DstPrefix"] == "eth"
        stop.result(timeout=10)
    # The idle connection was closed, not left hanging.
    assert idle.sock.recv(1) == b""
    idle.close()


def test_a_request_that_does_not_end_holds_up_the_stop_no_longer_than_the_grace(open_door, stuck):
    door = open_door(driver=stuck)
    prepare(stuck, door.path)
    connection = Connection(door.path)
    connection.request("POST", "/NetworkDriver.Join", body=json.dumps(JOIN))
    assert stuck.entered.acquire(timeout=10)
    begun_at = time.monotonic()
    door.server.stop(0.2)
    assert time.monotonic() - begun_at < 4.0
    assert not door.server.serving
    connection.close()


def test_a_server_that_fails_by_itself_lets_everybody_go_and_can_be_stopped(open_door, monkeypatch):
    door = open_door()
    connection = Connection(door.path)
    assert connection.call("Plugin.Activate").status == 200

    def fail(**_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("waitress.wasyncore.loop", fail)
    door.server._waitress.pull_trigger()
    wait_until(lambda: not door.server.serving)
    assert connection.sock.recv(1) == b""
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        call(door.path, "Plugin.Activate")
    door.server.stop()
    assert not door.path.exists()


def test_half_a_request_does_not_hold_up_the_stop(open_door):
    door = open_door()
    half = socket.socket(socket.AF_UNIX)
    half.connect(str(door.path))
    half.sendall(b"POST /NetworkDriver.Join HTTP/1.1\r\nContent-Length: 5\r\n\r\n{")
    assert call(door.path, "Plugin.Activate").status == 200
    begun_at = time.monotonic()
    door.server.stop(30.0)
    assert time.monotonic() - begun_at < 5.0
    half.close()


def test_a_request_that_has_just_been_sent_is_answered_though_the_server_stops(open_door):
    """It lies unread in the socket, or its connection is not even accepted, when the stop comes."""
    door = open_door(size=32, line=32)
    connections = []
    for _ in range(20):
        connection = Connection(door.path)
        connection.request("POST", "/NetworkDriver.Leave", body=json.dumps(IDS))
        connections.append(connection)
    door.server.stop(10.0)
    for connection in connections:
        assert connection.getresponse().read() == b"{}"
        connection.close()


def test_a_stopped_server_leaves_no_descriptor_behind(tmp_path):
    def open_descriptors() -> set[str]:
        descriptors = set(Path("/proc/self/fd").iterdir())
        # The one by which the folder itself was read is closed again.
        return {str(link.readlink()) for link in descriptors if os.path.lexists(link)}

    before = open_descriptors()
    server = new_server(tmp_path / "door.sock")
    server.start()
    connection = Connection(tmp_path / "door.sock")
    connection.call("Plugin.Activate")
    server.stop()
    connection.close()
    assert open_descriptors() == before
