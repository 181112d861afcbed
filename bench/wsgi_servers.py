"""Measure WSGI servers as the door of dockerd would use them; the figures stand in docs/decisions/0004-wsgi-server.md.

    python3 -m venv /tmp/wsgi && /tmp/wsgi/bin/pip install flask waitress gunicorn cheroot
    /tmp/wsgi/bin/python bench/wsgi_servers.py

Each server runs the same small Flask application in a process of its own, on a Unix socket, with 64 threads; the
client is a bare socket in this process.
"""

import os
import pathlib
import selectors
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

APPLICATION = """
import threading, time
from flask import Flask, Response, request
app = Flask("bench", static_folder=None)
@app.post("/Leave")
def leave():
    request.get_data()
    return Response(b"{}", content_type="application/vnd.docker.plugins.v1.2+json")
@app.post("/Join")
def join():
    time.sleep(0.2)
    return Response(b"{}", content_type="application/vnd.docker.plugins.v1.2+json")
"""
WAITRESS = """
import socket, sys, waitress
from application import app
listener = socket.socket(socket.AF_UNIX); listener.bind(sys.argv[1]); listener.listen(1024)
waitress.serve(app, sockets=[listener], threads=64, channel_timeout=10**9, connection_limit=4096,
               asyncore_use_poll=True, ident=None)
"""
CHEROOT = """
import sys
from cheroot.wsgi import Server
from application import app
server = Server(sys.argv[1], app, numthreads=64, timeout=10**6, request_queue_size=1024)
server.keep_alive_conn_limit = 4096  # 10 by default; others are closed after their answer
server.start()
"""
BODY = b'{"NetworkID":"' + b"a" * 64 + b'","EndpointID":"' + b"b" * 64 + b'"}\n'


def head(path: str, length: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {length}\r\n"
        "Accept: application/vnd.docker.plugins.v1.2+json\r\n\r\n"
    ).encode()


REQUEST = head("/Leave", len(BODY)) + BODY


def connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(path)
    return connection


def ask(connection: socket.socket, request: bytes = REQUEST) -> None:
    connection.sendall(request)
    answer = b""
    while not answer.endswith(b"{}"):
        part = connection.recv(65536)
        if not part:
            raise ConnectionError("closed")
        answer += part
    if not answer.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(answer)


def percentiles(seconds: list[float]) -> str:
    cuts = statistics.quantiles(seconds, n=100)
    return f"p50 {1e3 * cuts[49]:.2f} ms, p99 {1e3 * cuts[98]:.2f} ms"


def timed(call: Callable[[], None]) -> float:
    begun_at = time.perf_counter()
    call()
    return time.perf_counter() - begun_at


def one_connection(path: str) -> str:
    connection = connect(path)
    for _ in range(300):
        ask(connection)
    return percentiles([timed(lambda: ask(connection)) for _ in range(3000)])


def new_connections(path: str) -> str:
    def once() -> None:
        with connect(path) as connection:
            ask(connection)

    return percentiles([timed(once) for _ in range(1000)])


def parallel(path: str) -> str:
    """32 connections, each asking again as soon as it is answered."""
    selector = selectors.DefaultSelector()
    begun: dict[socket.socket, float] = {}
    took: list[float] = []
    for _ in range(32):
        connection = connect(path)
        selector.register(connection, selectors.EVENT_READ, bytearray())
        begun[connection] = time.perf_counter()
        connection.sendall(REQUEST)
    begun_at = time.perf_counter()
    while len(took) < 6000:
        for key, _ in selector.select():
            connection = key.fileobj
            key.data.extend(connection.recv(65536))
            if key.data.endswith(b"{}"):
                key.data.clear()
                took.append(time.perf_counter() - begun[connection])
                begun[connection] = time.perf_counter()
                connection.sendall(REQUEST)
    rate = len(took) / (time.perf_counter() - begun_at)
    for connection in begun:
        connection.close()
    return f"{rate:.0f}/s, {percentiles(took)}"


def slow_handlers(path: str) -> str:
    """One quick request after the other while 40 that take 0.2 s are under way all the time."""
    stop = threading.Event()

    def keep_asking() -> None:
        with connect(path) as connection:
            while not stop.is_set():
                ask(connection, head("/Join", len(BODY)) + BODY)

    threads = [threading.Thread(target=keep_asking) for _ in range(40)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    connection = connect(path)
    took = [timed(lambda: ask(connection)) for _ in range(500)]
    stop.set()
    for thread in threads:
        thread.join()
    return percentiles(took)


def half_requests(path: str) -> str:
    """The first whole request after 100 clients have sent half of one."""
    halves = [connect(path) for _ in range(100)]
    for half in halves:
        half.sendall(head("/Leave", 1000) + b"{")
    time.sleep(0.5)
    with connect(path) as connection:
        connection.settimeout(5)
        try:
            seconds = timed(lambda: ask(connection))
        except TimeoutError:
            return "no answer in 5 s"
        finally:
            for half in halves:
                half.close()
    return f"{1e3 * seconds:.1f} ms"


def idle(path: str) -> str:
    connection = connect(path)
    ask(connection)
    time.sleep(12)
    try:
        ask(connection)
    except OSError as error:
        return f"closed ({type(error).__name__})"
    return "still open"


def memory(pid: int) -> str:
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    kilobytes = 0
    for process in [str(pid), *children]:
        for line in pathlib.Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                kilobytes += int(line.split()[1])
    return f"{kilobytes / 1024:.0f} MB in {1 + len(children)} processes"


def main() -> None:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="wsgi-"))
    (folder / "application.py").write_text(APPLICATION)
    (folder / "serve_waitress.py").write_text(WAITRESS)
    (folder / "serve_cheroot.py").write_text(CHEROOT)
    gunicorn = ["-m", "gunicorn", "-k", "gthread", "-w", "1", "--threads", "64", "--keep-alive", "1000000"]
    gunicorn += ["--worker-connections", "4096", "--log-level", "error", "application:app", "--bind"]
    servers = {
        "waitress": ["serve_waitress.py"],
        "gunicorn gthread": gunicorn,
        "cheroot": ["serve_cheroot.py"],
    }
    measures = [one_connection, new_connections, parallel, slow_handlers, half_requests, idle]
    for name, arguments in servers.items():
        path = str(folder / f"{name[:4]}.sock")
        address = f"unix:{path}" if "gunicorn" in arguments else path
        process = subprocess.Popen([sys.executable, *arguments, address], cwd=folder)
        try:
            while True:
                try:
                    connect(path).close()
                    break
                except OSError:
                    time.sleep(0.05)
            time.sleep(1)
            for measure in measures:
                sys.stdout.write(f"{name:18} {measure.__name__:16} {measure(path)}\n")
                sys.stdout.flush()
            sys.stdout.write(f"{name:18} {'memory':16} {memory(process.pid)}\n")
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    shutil.rmtree(folder)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
