"""The door for people and monitors, over real HTTP on the loopback."""

import http.client
import json
import socket
import threading

import pytest

from spanlan.errors import Broken
from spanlan.metrics import Metrics
from spanlan.web import page
from spanlan.web.server import WebServer, application


class Daemon:
    """Stands for the daemon: its status is what a test says."""

    def __init__(self):
        self.metrics = Metrics()
        self.now = {"host": "a", "ready": True}

    def status(self):
        if isinstance(self.now, Exception):
            raise self.now
        return self.now


@pytest.fixture
def daemon():
    return Daemon()


@pytest.fixture
def server(daemon):
    with WebServer("127.0.0.1", 0, status=daemon.status, registry=daemon.metrics.registry) as running:
        yield running


def ask(server, path, verb="GET", **headers):
    connection = http.client.HTTPConnection(*server.address, timeout=5)
    try:
        connection.request(verb, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        return answer, answer.read().decode()
    finally:
        connection.close()


def test_health_tells_that_the_process_lives_even_if_the_status_fails(server, daemon):
    daemon.now = RuntimeError("no status")
    answer, body = ask(server, "/healthz")
    assert answer.status == 200
    assert json.loads(body)["status"] == "alive"


def test_ready_while_in_step(server):
    answer, body = ask(server, "/readyz")
    assert (answer.status, json.loads(body)) == (200, {"status": "ready"})


def test_not_ready_says_why(server, daemon):
    daemon.now = {"ready": False, "reason": "the store is away"}
    answer, body = ask(server, "/readyz")
    assert (answer.status, json.loads(body)) == (503, {"status": "not ready", "reason": "the store is away"})


def test_not_ready_if_the_status_does_not_say(server, daemon):
    daemon.now = {"ready": "yes, mostly"}
    assert ask(server, "/readyz")[0].status == 503


def test_a_status_that_fails_is_an_error_without_a_traceback(server, daemon, caplog):
    daemon.now = RuntimeError("secret detail")
    answer, body = ask(server, "/status.json")
    assert answer.status == 500
    assert "secret detail" not in body
    assert "secret detail" in caplog.text


def test_metrics_are_what_a_scraper_reads(server, daemon):
    daemon.metrics.written("fdb", 2)
    answer, body = ask(server, "/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert 'spanlan_kernel_entries_written_total{table="fdb"} 2.0' in body


@pytest.mark.parametrize("accept", ["application/openmetrics-text; version=nonsense", "text/plain;version=;;", "\xff"])
def test_a_scraper_with_a_strange_accept_header_is_served(server, accept):
    assert ask(server, "/metrics", Accept=accept)[0].status == 200


def test_the_status_is_served_to_parse_and_to_read(server, daemon):
    daemon.now = {"host": "a", "ready": True, "segments": [{"name": "blue", "vni": 7}]}
    assert json.loads(ask(server, "/status.json")[1]) == daemon.now
    body = ask(server, "/")[1]
    assert "spanlan on a" in body
    assert "<td>blue</td><td>7</td>" in body


def test_values_from_outside_cannot_become_markup(server, daemon):
    daemon.now = {
        "host": "<b>a</b>",
        "ready": True,
        "x": "<script>",
        "segments": [{"<i>": "</td>"}],
        "m": {"<u>": "<s>"},
    }
    body = ask(server, "/")[1]
    for markup in ["<b>", "<script>", "<i>", "</td></td>", "<u>", "<s>"]:
        assert markup not in body


def test_a_page_is_bounded_and_says_what_it_leaves_out():
    rows = [{"address": f"row {number}."} for number in range(page.ROWS_SHOWN + 5)]
    drawn = page.render({"ready": True, "endpoints": rows})
    assert f"row {page.ROWS_SHOWN - 1}." in drawn
    assert f"row {page.ROWS_SHOWN}." not in drawn
    assert "and 5 more" in drawn


def test_the_page_draws_every_kind_of_value():
    drawn = page.render({"ready": False, "in_sync": True, "none": None, "list": [1, 2], "map": {"k": [3]}, "empty": []})
    for part in [
        "not ready",
        "in sync</th><td>yes",
        "none</th><td>-",
        "<td>1, 2</td>",
        "map: k</th><td>3",
        "<h2>empty</h2>",
    ]:
        assert part in drawn


@pytest.mark.parametrize("verb", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_nothing_can_be_changed_here(server, verb):
    answer, _ = ask(server, "/status.json", verb=verb)
    assert answer.status == 405
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD"}


def test_an_unknown_path_is_a_short_error(server):
    answer, body = ask(server, "/etc/passwd")
    assert (answer.status, json.loads(body)) == (404, {"error": "Not Found"})


@pytest.mark.parametrize("path", ["/", "/status.json", "/healthz", "/readyz", "/metrics", "/nowhere"])
def test_every_answer_carries_the_security_headers(server, path):
    headers = ask(server, path)[0].headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["Cache-Control"] == "no-store"
    assert "Server" not in headers


def test_the_page_needs_nothing_that_its_policy_forbids(server):
    answer, body = ask(server, "/")
    assert page.STYLE_HASH in answer.headers["Content-Security-Policy"]
    assert "<script" not in body
    assert "style=" not in body


def test_a_name_that_was_made_to_point_to_the_loopback_is_refused(server):
    assert ask(server, "/status.json", Host="evil.example")[0].status == 400
    assert ask(server, "/status.json", Host="localhost:9580")[0].status == 200


def test_on_a_public_address_any_name_is_served(daemon):
    client = application(daemon.status, daemon.metrics.registry, only_loopback_names=False).test_client()
    assert client.get("/healthz", headers={"Host": "host1.example"}).status_code == 200


def test_a_request_that_is_too_long_is_refused(server):
    assert ask(server, "/" + "x" * 20000)[0].status == 431


def test_a_body_is_refused(server):
    answer, _ = ask(server, "/status.json", Content_Length="999999")
    assert answer.status == 413


def test_an_address_in_use_is_told_with_the_setting_to_change(daemon):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = WebServer("127.0.0.1", port, status=daemon.status, registry=daemon.metrics.registry)
        with pytest.raises(Broken, match=f"127.0.0.1:{port}.*SPANLAN_HTTP"):
            server.start()
        server.stop()


def test_stopping_frees_the_port_and_ends_every_thread(daemon):
    before = set(threading.enumerate())
    server = WebServer("127.0.0.1", 0, status=daemon.status, registry=daemon.metrics.registry)
    server.start()
    address = server.address
    assert ask(server, "/healthz")[0].status == 200
    server.stop()
    server.stop()
    assert set(threading.enumerate()) <= before
    socket.create_server(address).close()


def test_a_stopped_server_can_start_again(daemon):
    server = WebServer("127.0.0.1", 0, status=daemon.status, registry=daemon.metrics.registry)
    for _ in range(2):
        with server:
            assert ask(server, "/healthz")[0].status == 200


def test_the_page_is_served_over_ipv6(daemon):
    with WebServer("::1", 0, status=daemon.status, registry=daemon.metrics.registry) as server:
        assert ask(server, "/healthz")[0].status == 200


def test_open_connections_do_not_hold_up_the_end(daemon):
    with WebServer("127.0.0.1", 0, status=daemon.status, registry=daemon.metrics.registry) as server:
        idle = [socket.create_connection(server.address) for _ in range(5)]
        assert ask(server, "/healthz")[0].status == 200
    for connection in idle:
        connection.settimeout(5)
        assert connection.recv(1) == b""
        connection.close()
