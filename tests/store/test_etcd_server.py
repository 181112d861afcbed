"""The fixture itself: servers start, fail and come back as the other tests need."""

from store.etcd_server import FIRST_PORT, EtcdServer


def test_a_server_takes_writes_and_listens_below_the_range_of_outgoing_ports(etcd: EtcdServer):
    """Trap 25: a port above 32767 may be held by an outgoing connection when the server starts."""
    etcd.ctl("put", "/fixture", "here")

    assert etcd.ctl("get", "--print-value-only", "/fixture").strip() == "here"
    assert all(FIRST_PORT <= port < 32768 for port in (etcd.client_port, etcd.peer_port, etcd.metrics_port))
