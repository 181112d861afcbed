"""Networks and endpoints of one host from their creation to their end, also where a step on the way fails."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

import pytest

from netns import NetworkNamespace
from one_host import OneHost
from spanlan import deadline
from spanlan.control.loop import sweep
from spanlan.drivers.vxlan import device_name
from spanlan.errors import Gone, Retry
from spanlan.kernel.links import Links
from spanlan.model.cluster import Endpoint, Member
from spanlan.model.host import MacvlanLink
from spanlan.model.mac import derive_mac
from spanlan.store import codec, keys
from spanlan.store.base import Commit, Condition, Operation, Put
from spanlan.store.sqlite import SqliteStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "cluster.db")
    yield opened
    opened.close()


@pytest.fixture
def host(namespace: NetworkNamespace, store: SqliteStore, tmp_path: Path) -> Iterator[OneHost]:
    with OneHost(store, tmp_path) as started:
        yield started


def devices(host: OneHost) -> list[str]:
    return sorted(link.name for link in host.links.ours())


def test_what_comes_goes_and_leaves_nothing(host: OneHost, store: SqliteStore) -> None:
    host.create_network("n1", vni="42")
    host.create_endpoint("n1", "e1", "10.0.0.2/24", "fd00::2/64")
    host.service.join("n1", "e1", "")
    assert devices(host) == ["sle-e1", "slx-42"]
    host.service.delete_endpoint("n1", "e1")
    host.service.delete_network("n1")
    assert devices(host) == []
    assert store.range("/segments/").entries + store.range("/vnis/").entries == ()
    assert host.records.endpoints() + host.records.networks() + host.records.debts() == []


def test_a_network_that_could_not_be_made_leaves_nothing(host: OneHost, store: SqliteStore) -> None:
    def fail(_pools: object, _segment: object) -> None:
        raise Retry("something")

    host.networks._created = fail
    with pytest.raises(Retry, match="something"):
        host.create_network("n1", vni="42")
    assert devices(host) == []
    assert host.peers.following("blue") is None
    assert store.range("/segments/").entries == ()
    assert host.records.networks() + host.records.debts() == []


def test_a_network_that_ran_out_of_time_leaves_nothing_once_its_debts_are_paid(
    host: OneHost, store: SqliteStore
) -> None:
    def dawdle(_pools: object, _segment: object) -> None:
        deadline.remaining(0)
        while True:
            deadline.check()

    host.networks._created = dawdle
    with deadline.within(1.0), pytest.raises(Retry, match="out of time"):
        host.create_network("n1", vni="42")
    assert host.records.networks() == []
    host.debts.pay_all()
    assert devices(host) == []
    assert store.range("/segments/").entries == ()


def test_an_endpoint_that_ran_out_of_time_leaves_nothing_once_its_debts_are_paid(
    host: OneHost, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.create_network("n1", vni="42")
    claim = host.segments.claim

    def slow_claim(*arguments: object) -> None:
        claim(*arguments)  # type: ignore[arg-type]
        while True:
            deadline.check()

    monkeypatch.setattr(host.segments, "claim", slow_claim)
    with deadline.within(0.5), pytest.raises(Retry, match="out of time"):
        host.create_endpoint("n1", "e1", "10.0.0.2/24", "fd00::2/64")
    assert host.records.endpoints() == []
    host.debts.pay_all()
    assert store.range(keys.endpoints("blue")).entries == ()


@pytest.mark.parametrize("slow", ["peers.unfollow", "records.forget_network"])
def test_a_network_that_comes_while_the_last_one_of_its_segment_goes_is_whole(
    host: OneHost, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    host.create_network("old")
    begun, made = threading.Event(), threading.Event()
    whose = getattr(host, slow.split(".", maxsplit=1)[0])
    step = getattr(whose, slow.split(".")[1])

    def slow_step(*arguments: object) -> None:
        begun.set()
        made.wait(0.5)  # the other one gets its chance, and may have to wait for us
        step(*arguments)

    monkeypatch.setattr(whose, slow.split(".")[1], slow_step)
    going = threading.Thread(target=host.service.delete_network, args=("old",))
    going.start()
    assert begun.wait(30)
    host.create_network("new")
    made.set()
    going.join(timeout=30)
    monkeypatch.undo()
    network = host.records.network("new")
    following = host.peers.following("blue")
    found = host.segments.find("blue")
    assert network is not None
    assert following is not None, "the network is there, and nobody follows its segment"
    assert found is not None
    assert following.segment == network.segment == found[0]
    assert devices(host) == [device_name(network.segment)]
    host.service.delete_network("new")
    assert devices(host) == []
    assert store.range("/segments/").entries == ()


def test_networks_that_come_and_go_on_one_segment_in_many_threads_leave_nothing(
    host: OneHost, store: SqliteStore
) -> None:
    failures: list[Exception] = []

    def come_and_go(name: str) -> None:
        try:
            for _ in range(4):
                host.create_network(name)
                host.service.delete_network(name)
        except Exception as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=come_and_go, args=(f"n{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert failures == []
    assert devices(host) == []
    assert store.range("/segments/").entries == ()


def test_a_network_whose_membership_was_written_without_an_answer_leaves_nothing(
    host: OneHost, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = store.commit

    def answer_is_lost(conditions: Sequence[Condition], operations: Sequence[Operation]) -> Commit:
        done = commit(conditions, operations)
        if any(isinstance(each, Put) and each.key == keys.segment("blue") for each in operations):
            monkeypatch.undo()
            raise Retry("no answer")
        return done

    monkeypatch.setattr(store, "commit", answer_is_lost)
    with pytest.raises(Retry, match="no answer"):
        host.create_network("n1", vni="42")
    assert store.range("/segments/").entries == ()


def test_a_network_takes_along_the_endpoints_whose_end_was_never_told(host: OneHost, store: SqliteStore) -> None:
    """dockerd gives up telling of a container's end after 15 s without a plugin."""
    with ExitStack() as stack:
        host.create_network("n1", vni="42")
        host.create_network("n2", vni="42")
        stack.callback(host.service.delete_network, "n2")
        host.create_endpoint("n1", "e1", "10.0.0.2/24")
        host.create_endpoint("n2", "e2", "10.0.0.3/24")
        host.service.join("n1", "e1", "")
        host.service.delete_network("n1")
        assert [each.endpoint_id for each in host.records.endpoints()] == ["e2"]
        assert len(store.range(keys.endpoints("blue")).entries) == 1
        assert devices(host) == ["slx-42"]


def test_an_endpoint_whose_link_cannot_be_removed_gives_its_address_back_all_the_same(
    host: OneHost, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.create_network("n1", vni="42")
    host.create_endpoint("n1", "e1", "10.0.0.2/24")

    def fail(_: str) -> bool:
        raise Retry("the kernel is busy")

    monkeypatch.setattr(host.links, "delete", fail)
    host.service.delete_endpoint("n1", "e1")
    assert store.range(keys.endpoints("blue")).entries == ()
    assert host.records.endpoints() == []


def test_a_link_made_for_an_endpoint_that_is_gone_meanwhile_is_removed(
    host: OneHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dockerd gave up on a slow Join and has deleted the endpoint; nobody else would remove the link."""
    host.create_network("n1", vni="42")
    host.create_endpoint("n1", "e1", "10.0.0.2/24")
    make = host.links.make_child

    def slow_make(link: MacvlanLink) -> int:
        host.service.delete_endpoint("n1", "e1")
        return make(link)

    monkeypatch.setattr(host.links, "make_child", slow_make)
    with pytest.raises(Gone, match="deleted"):
        host.service.join("n1", "e1", "")
    assert devices(host) == ["slx-42"]


def test_an_underlay_that_was_renumbered_while_the_daemon_was_away_is_where_the_vtep_is(
    namespace: NetworkNamespace, store: SqliteStore, tmp_path: Path
) -> None:
    def vteps() -> list[str]:
        members = [codec.decode_member(entry) for entry in store.range(keys.members("blue")).entries]
        return [str(address) for member in members for address in member.underlay]

    with OneHost(store, tmp_path) as host:
        host.create_network("n1", vni="42")
    assert vteps() == ["10.9.0.1"]
    namespace.command("ip", "addr", "del", "10.9.0.1/24", "dev", "under0")
    namespace.command("ip", "addr", "add", "10.9.0.7/24", "dev", "under0")
    with OneHost(store, tmp_path) as host:
        host.create_network("n2")
        following = host.peers.following("blue")
        assert following is not None
        assert following.wait(30)
        wait_until(lambda: vteps() == ["10.9.0.7"])
        assert "local 10.9.0.7" in namespace.command("ip", "-d", "link", "show", "slx-42")
        kept = host.records.network("n1")
        assert kept is not None
        assert [str(each) for each in kept.attachment.underlay] == ["10.9.0.7"]


def test_what_a_container_left_owed_does_not_stand_in_the_way_of_the_next_one_with_its_address(host: OneHost) -> None:
    """Of a dual-stack container one address was given back and the other is owed: the MAC is that of the first."""
    host.create_network("n1", vni="42")
    host.create_endpoint("n1", "e1", "10.0.0.2/24", "fd00::2/64")
    following = host.peers.following("blue")
    assert following is not None
    wait_until(lambda: following.status()["endpoints"] == 2)
    away = iter([None, "away"])
    host.debts._away = lambda: next(away)
    host.service.delete_endpoint("n1", "e1")
    assert len(host.records.debts()) == 1
    wait_until(lambda: following.status()["endpoints"] == 1)
    host.create_endpoint("n1", "e2", "10.0.0.2/24", "fd00::3/64")
    assert host.records.debts() == []


def test_a_host_that_lost_its_records_can_use_its_addresses_again(
    namespace: NetworkNamespace, store: SqliteStore, tmp_path: Path
) -> None:
    with OneHost(store, tmp_path) as host:
        host.create_network("n1", vni="42")
        host.create_endpoint("n1", "e1", "10.0.0.2/24")
    (tmp_path / "new").mkdir()
    with OneHost(store, tmp_path / "new") as host:
        host.create_network("n1", vni="42")
        host.create_endpoint("n1", "e2", "10.0.0.2/24")
        (entry,) = store.range(keys.endpoints("blue")).entries
        assert codec.decode_endpoint(entry).endpoint_id == "e2"


def test_the_loop_goes_on_after_a_surprise(host: OneHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def surprise(_: str) -> bool:
        raise ZeroDivisionError

    host.create_network("n1", vni="42")
    with monkeypatch.context() as patched:
        patched.setattr(host.links, "delete", surprise)
        host.service.delete_network("n1")
    host.create_network("n2", segment="green", vni="43")
    assert "slx-43" in devices(host)


def test_a_remnant_that_cannot_be_removed_keeps_no_other_one(
    namespace: NetworkNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = Links()
    for number in range(3):
        namespace.command("ip", "link", "add", f"slx-{number}", "link", "under0", "type", "macvlan")
        namespace.command("ip", "link", "set", f"slx-{number}", "alias", "spanlan segment=old")
    delete = links.delete

    def fail_once(name: str) -> bool:
        if name == "slx-1":
            raise Retry("busy")
        return delete(name)

    monkeypatch.setattr(links, "delete", fail_once)
    sweep(links, [])
    assert [link.name for link in links.ours()] == ["slx-1"]


def test_an_entry_that_the_kernel_refuses_keeps_no_container_from_joining(host: OneHost, store: SqliteStore) -> None:
    """An MTU below 1280 leaves the device without IPv6, and another host's IPv6 endpoint cannot be entered."""
    host.create_network("n1", vni="42", mtu="1200")
    there = ip_address("fd00::9")
    store.commit(
        [],
        [
            Put(
                keys.member("blue", "b"), codec.encode_member(Member("blue", "b", (ip_address("192.0.2.9"),), ("n2",)))
            ),
            Put(
                keys.endpoint("blue", there),
                codec.encode_endpoint(Endpoint("blue", there, derive_mac("blue", there), "b", "e9")),
            ),
        ],
    )
    wait_until(lambda: host.loop.status()[0]["trouble"] is not None)
    host.create_endpoint("n1", "e1", "10.0.0.2/24")
    host.service.join("n1", "e1", "")
    assert "sle-e1" in devices(host)
    assert host.loop.status()[0]["pending"] == 1


def wait_until(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.01)
