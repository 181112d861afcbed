"""The etcd client: reads, writes, leases and transactions against a real server.  Trap numbers: docs/decisions/0001."""

import queue
import warnings
from collections.abc import Iterator

import pytest

from spanlan.store import etcd3
from spanlan.store.etcd3 import wire
from store.etcd_server import EtcdServer, wait_until

ENUM, MESSAGE = 14, 11  # descriptor.proto's FieldDescriptorProto.Type


@pytest.fixture
def client(etcd: EtcdServer) -> Iterator[etcd3.Client]:
    with etcd3.Client([etcd.endpoint]) as made:
        yield made


@pytest.fixture
def top(root: str) -> bytes:
    return root.encode() + b"/"


def test_what_was_put_is_got_until_it_is_deleted(client: etcd3.Client, top: bytes):
    revision = client.put(top + b"k", b"v")

    found = client.get(top + b"k")
    assert found is not None
    assert (found.value, found.mod_revision, found.version) == (b"v", revision, 1)
    assert client.delete(top + b"k")
    assert not client.delete(top + b"k")
    assert client.get(top + b"k") is None


def test_a_prefix_is_listed_in_order_and_deleted_as_a_whole(client: etcd3.Client, top: bytes):
    for name in (b"b", b"c", b"a"):
        client.put(top + name, name)

    assert [kv.value for kv in client.get_prefix(top)] == [b"a", b"b", b"c"]
    assert [kv.value for kv in client.get_range(top + b"a", top + b"c")] == [b"a", b"b"]
    assert client.delete_prefix(top) == 3
    assert len(client.get_prefix(top)) == 0


def test_limit_and_revision_of_a_read_are_honoured(client: etcd3.Client, top: bytes):
    """Trap 2: etcd3 0.12 ignores both."""
    before = client.put(top + b"1", b"old")
    client.put(top + b"1", b"new")
    client.put(top + b"2", b"x")

    listing = client.get_prefix(top, limit=1)
    assert (len(listing), listing.count) == (1, 2)
    assert [kv.value for kv in client.get_prefix(top, revision=before)] == [b"old"]
    old = client.get(top + b"1", revision=before)
    assert old is not None
    assert old.value == b"old"


def test_a_long_listing_is_read_in_pages_at_one_revision(client: etcd3.Client, top: bytes):
    for first in range(0, 500, 100):
        client.transaction([], [etcd3.put(top + b"%04d" % n, b"v") for n in range(first, first + 100)])

    listing = client.get_range(top, etcd3.prefix_end(top), page=70)
    assert [kv.key for kv in listing] == [top + b"%04d" % n for n in range(500)]
    assert len(client.get_range(top, etcd3.prefix_end(top), page=70, limit=150)) == 150


def test_a_reply_larger_than_four_megabytes_is_taken(client: etcd3.Client, top: bytes):
    """Trap 13: gRPC's default limit."""
    for number in range(5):
        client.put(top + b"%d" % number, bytes(1_000_000))

    assert sum(len(kv.value) for kv in client.get_prefix(top)) == 5_000_000
    client.delete_prefix(top)


@pytest.mark.parametrize(
    ("prefix", "end"),
    [(b"/a/", b"/a0"), (b"a\xff", b"b"), (b"a\xff\xff", b"b"), (b"\xff\xff", b"\0"), (b"", b"\0")],
)
def test_the_end_of_a_prefix_is_the_next_key_after_it(prefix: bytes, end: bytes):
    """Trap 24: bytes of 0xff cannot be counted up."""
    assert etcd3.prefix_end(prefix) == end


def test_a_prefix_that_ends_in_0xff_is_listed(client: etcd3.Client, top: bytes):
    """Trap 24, with the server."""
    client.put(top + b"\xff", b"1")
    client.put(top + b"\xff\xff", b"2")
    client.put(top + b"\xfe", b"no")

    assert [kv.value for kv in client.get_prefix(top + b"\xff")] == [b"1", b"2"]


def test_a_transaction_runs_one_branch_or_the_other(client: etcd3.Client, top: bytes):
    key = top + b"k"
    won = client.transaction([etcd3.absent(key)], [etcd3.put(key, b"1")], [etcd3.get(key)])
    lost = client.transaction([etcd3.absent(key)], [etcd3.put(key, b"2")], [etcd3.get(key)])

    assert won.succeeded
    assert not lost.succeeded
    assert lost.responses[0].kvs[0].value == b"1"
    assert client.transaction([etcd3.unchanged(key, won.revision)], [etcd3.delete(key)]).succeeded


@pytest.mark.parametrize(
    ("comparison", "holds"),
    [
        (("version", "==", 2), True),
        (("version", ">", 2), False),
        (("version", "!=", 1), True),
        (("value", "==", b"second"), True),
        (("value", "<", b"first"), False),
        (("lease", "==", 0), True),
    ],
)
def test_every_comparison_is_understood_by_the_server(client: etcd3.Client, top: bytes, comparison, holds):
    client.put(top + b"k", b"first")
    client.put(top + b"k", b"second")

    assert client.transaction([etcd3.compare(top + b"k", *comparison)], []).succeeded is holds


def test_a_transaction_that_is_too_large_is_refused_before_it_is_sent(client: etcd3.Client, top: bytes):
    with pytest.raises(ValueError, match="128"):
        client.transaction([], [etcd3.put(top + b"%d" % n, b"") for n in range(129)])


def test_a_lease_that_has_ended_is_an_error_and_not_a_value(client: etcd3.Client, top: bytes):
    """Trap 15: to etcd a lost lease is a TTL of 0, without error."""
    lease = client.lease(60)
    client.put(top + b"k", b"v", lease=lease)
    assert lease.refresh() == 60
    assert 0 < lease.remaining() <= 60

    lease.revoke()
    assert client.get(top + b"k") is None
    with pytest.raises(etcd3.LeaseLost):
        lease.refresh()
    with pytest.raises(etcd3.LeaseLost):
        lease.remaining()
    with pytest.raises(etcd3.LeaseLost):
        client.put(top + b"k", b"v", lease=lease)
    with pytest.raises(etcd3.LeaseLost):
        client.transaction([], [etcd3.put(top + b"k", b"v", lease=lease.id)])
    lease.revoke()


def test_a_lease_that_nobody_refreshes_ends_by_itself(client: etcd3.Client, top: bytes):
    """Trap 15: the same after a pause of the host that is longer than the lease."""
    lease = client.lease(1)
    client.put(top + b"k", b"v", lease=lease)

    wait_until(lambda: client.get(top + b"k") is None, 10, lambda: "the lease does not end")
    with pytest.raises(etcd3.LeaseLost):
        lease.refresh()


def test_a_compacted_revision_is_reported_as_such(fragile: EtcdServer):
    with etcd3.Client([fragile.endpoint]) as client:
        first = client.put(b"/k", b"1")
        client.compact(client.put(b"/k", b"2"))

        with pytest.raises(etcd3.Compacted):
            client.get(b"/k", revision=first)


def test_a_closed_client_says_so(etcd: EtcdServer):
    client = etcd3.Client([etcd.endpoint])
    client.get(b"/k")
    client.close()

    with pytest.raises(etcd3.Closed):
        client.get(b"/k")


def test_proxies_in_the_environment_are_ignored(etcd: EtcdServer, monkeypatch: pytest.MonkeyPatch):
    """Trap 23: gRPC would send everything through them."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)

    with etcd3.Client([etcd.endpoint], timeout=3) as client:
        assert client.status().version
    with_proxy = [("grpc.enable_http_proxy", 1)]
    with etcd3.Client([etcd.endpoint], timeout=1, options=with_proxy) as proxied, pytest.raises(etcd3.Unreachable):
        proxied.status()


def test_channels_ping_seldom_enough_for_etcd_and_have_both_timeouts():
    """Traps 10, 11, 12 and 13, as options; what they do is seen in test_etcd_faults."""
    from spanlan.store.etcd3.connections import CHANNEL_OPTIONS

    options = dict(CHANNEL_OPTIONS)
    assert options["grpc.keepalive_time_ms"] >= 10_000
    assert options["grpc.keepalive_permit_without_calls"] == 0
    assert options["grpc.http2.ping_timeout_ms"] == options["grpc.keepalive_timeout_ms"] == 5_000
    assert options["grpc.min_reconnect_backoff_ms"] >= 2_000


def _generated_messages() -> dict[str, object]:
    """The descriptors in the package etcd-sdk-python, generated from etcd's own description."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a package that is not ours
        from pyetcd.etcdrpc import kv_pb2, rpc_pb2
    return {**kv_pb2.DESCRIPTOR.message_types_by_name, **rpc_pb2.DESCRIPTOR.message_types_by_name}


def test_the_wire_table_agrees_with_etcds_own_description_and_stands_beside_it():
    """Trap 22: another etcd package in the process has its generated code in the global pool."""
    reference = _generated_messages()
    younger_than_the_reference = {"WatchCreateRequest.fragment", "WatchResponse.fragment"}  # see the test after this

    differences = []
    for name in wire.TABLE:
        ours, theirs = getattr(wire.messages, name).DESCRIPTOR, reference[name]
        for field in ours.fields:
            other = theirs.fields_by_name.get(field.name)
            if f"{name}.{field.name}" in younger_than_the_reference:
                assert other is None, "now there is something to compare with"
                continue
            if other is None or _essence(field) != _essence(other):
                differences.append(f"{name}.{field.name}: {_essence(field)}, theirs {other and _essence(other)}")
    assert differences == []


def test_a_large_response_of_a_watch_comes_in_fragments_and_is_joined(client: etcd3.Client, top: bytes):
    """Trap 4: the position may move only when the last fragment is here."""
    first = client.put(top + b"0", bytes(1_000_000))
    for number in range(1, 5):
        client.put(top + b"%d" % number, bytes(1_000_000))

    create = wire.messages.WatchCreateRequest(
        key=top, range_end=etcd3.prefix_end(top), start_revision=first, fragment=True
    )
    requests: queue.SimpleQueue[object] = queue.SimpleQueue()
    requests.put(wire.messages.WatchRequest(create_request=create))
    call = client._endpoints.current().call("Watch", iter(requests.get, None), timeout=20)
    assert next(call).created
    assert next(call).fragment
    requests.put(None)
    call.cancel()
    with client.watch_prefix(top, start_revision=first) as watch:
        joined = next(happening for happening in watch if isinstance(happening, etcd3.Events))
    assert len(joined.events) == 5
    client.delete_prefix(top)


def _essence(field) -> tuple[object, ...]:
    kind = field.message_type.name if field.type == MESSAGE else None
    values = (
        [(value.number, value.name.rpartition("_")[2]) for value in field.enum_type.values]
        if field.type == ENUM
        else []
    )
    choice = field.containing_oneof.name if field.containing_oneof else None
    return field.number, field.type, field.is_repeated, kind, choice, [(n, v) for n, v in values if n < 2]
