"""What this host remembers by itself survives it."""

import threading
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from spanlan import deadline
from spanlan.control.debts import Debts
from spanlan.control.records import Debt, Records
from spanlan.errors import Broken, Gone, Refuse, Retry
from spanlan.model.cluster import Segment, Tunnel
from spanlan.model.host import TunnelAttachment
from spanlan.model.local import LocalEndpoint, Network
from spanlan.model.mac import derive_mac
from spanlan.store.sqlite import SqliteStore

SIX = ip_address("2001:db8::1")
NETWORK = Network(
    network_id="n" * 64,
    segment=Segment("blue", "vxlan", tunnel=Tunnel(42, 4789, 1450, 6)),
    attachment=TunnelAttachment("eth0", SIX, ttl=3, tos=1, udp_csum=False),
    prefix="eth",
    internal=True,
)
ENDPOINT = LocalEndpoint(
    endpoint_id="e" * 64,
    network_id="n" * 64,
    segment="blue",
    addresses=(ip_address("10.0.0.1"), SIX),
    mac=derive_mac("blue", SIX),
)


@pytest.fixture
def reopen(tmp_path: Path) -> Callable[[], Records]:
    """Records as a daemon finds them that starts now."""
    return lambda: Records(SqliteStore(tmp_path / "host.db"))


def test_networks_and_endpoints_are_the_same_after_a_restart(reopen: Callable[[], Records]) -> None:
    records = reopen()
    records.remember_network(NETWORK)
    records.remember_endpoint(ENDPOINT)
    again = reopen()
    assert again.network(NETWORK.network_id) == NETWORK
    assert again.endpoint(ENDPOINT.endpoint_id) == ENDPOINT


def test_what_was_forgotten_stays_forgotten(reopen: Callable[[], Records]) -> None:
    records = reopen()
    records.remember_endpoint(ENDPOINT)
    records.forget_endpoint(ENDPOINT.endpoint_id)
    assert records.endpoint(ENDPOINT.endpoint_id) is None
    assert reopen().endpoints() == []


def test_debts_keep_their_order_over_a_restart(reopen: Callable[[], Records]) -> None:
    records = reopen()
    for number in range(12):
        records.owe({"what": "address", "number": str(number)})
    again = reopen()
    again.owe({"what": "address", "number": "12"})
    assert [debt["number"] for _, debt in again.debts()] == [str(number) for number in range(13)]


def test_what_a_late_request_forgets_is_forgotten(reopen: Callable[[], Records]) -> None:
    records = reopen()
    records.remember_endpoint(ENDPOINT)
    with deadline.within(0.0):
        records.forget_endpoint(ENDPOINT.endpoint_id)
    assert reopen().endpoints() == []


class TestDebts:
    def paying(self, records: Records, outcomes: list[Exception | None]) -> tuple[Debts, list[Debt]]:
        paid: list[Debt] = []

        def pay(debt: Debt) -> None:
            outcome = outcomes.pop(0) if outcomes else None
            if outcome is not None:
                raise outcome
            paid.append(debt)

        debts = Debts(records, away=lambda: None)
        debts.ways = {"address": pay}
        return debts, paid

    def test_a_removal_that_the_store_could_not_take_is_made_up_for_later(self, reopen: Callable[[], Records]) -> None:
        records = reopen()
        debts, paid = self.paying(records, [Retry("away")])
        debts.pay_or_owe({"what": "address", "address": "10.0.0.1"})
        assert (paid, len(records.debts())) == ([], 1)
        debts.pay_all()
        assert [debt["address"] for debt in paid] == ["10.0.0.1"]
        assert reopen().debts() == []

    def test_what_is_owed_while_the_store_is_there_is_made_up_for_without_another_request(
        self, reopen: Callable[[], Records]
    ) -> None:
        """Of a claim whose answer was lost nothing else may ever be heard, neither from dockerd nor from the store."""
        records = reopen()
        debts, paid = self.paying(records, [])
        debts.start()
        try:
            ends_at = time.monotonic() + 10
            debts.owe({"what": "address", "address": "10.0.0.1"})
            while not paid and time.monotonic() < ends_at:
                time.sleep(0.01)
        finally:
            debts.stop()
        assert [debt["address"] for debt in paid] == ["10.0.0.1"]

    def test_while_the_store_is_away_nothing_is_struck_out(self, reopen: Callable[[], Records]) -> None:
        records = reopen()
        records.owe({"what": "address", "address": "10.0.0.1"})
        debts, _ = self.paying(records, [Retry("away")])
        with pytest.raises(Retry):
            debts.pay_all()
        assert len(reopen().debts()) == 1

    @pytest.mark.parametrize("answer", [Gone("not there"), Refuse("not yours")])
    def test_what_needs_no_paying_any_more_is_struck_out(
        self, reopen: Callable[[], Records], answer: Exception
    ) -> None:
        records = reopen()
        records.owe({"what": "address", "address": "10.0.0.1"})
        debts, _ = self.paying(records, [answer])
        debts.pay_all()
        assert reopen().debts() == []

    def test_a_store_that_is_known_to_be_away_is_not_tried(self, reopen: Callable[[], Records]) -> None:
        records = reopen()
        debts, paid = self.paying(records, [])
        away = Debts(records, away=lambda: "no route")
        away.ways = debts.ways
        away.pay_or_owe({"what": "address", "address": "10.0.0.1"})
        assert (paid, len(records.debts())) == ([], 1)

    def test_a_removal_that_comes_after_the_deadline_is_owed(self, reopen: Callable[[], Records]) -> None:
        debts, _ = self.paying(reopen(), [Retry("out of time")])
        with deadline.within(0.0):
            debts.pay_or_owe({"what": "address", "address": "10.0.0.1"})
        assert len(reopen().debts()) == 1

    def test_a_removal_that_fails_for_good_is_owed_too_since_dockerd_tells_it_once(
        self, reopen: Callable[[], Records]
    ) -> None:
        debts, _ = self.paying(reopen(), [Broken("permission denied")])
        debts.pay_or_owe({"what": "address", "address": "10.0.0.1"})
        assert len(reopen().debts()) == 1

    @pytest.mark.parametrize("trouble", [Broken("a record that cannot be read"), KeyError("endpoint")])
    def test_a_debt_that_cannot_be_paid_stands_in_the_way_of_no_other_and_of_no_request(
        self, reopen: Callable[[], Records], trouble: Exception
    ) -> None:
        records = reopen()
        for number in range(3):
            records.owe({"what": "address", "address": f"10.0.0.{number}"})
        debts, paid = self.paying(records, [None, trouble])
        debts.pay_all()
        assert [debt["address"] for debt in paid] == ["10.0.0.0", "10.0.0.2"]
        assert [debt["address"] for _, debt in reopen().debts()] == ["10.0.0.1"]

    def test_a_request_waits_for_who_is_paying_no_longer_than_its_deadline(self, reopen: Callable[[], Records]) -> None:
        records = reopen()
        records.owe({"what": "address", "address": "10.0.0.1"})
        begun, go_on = threading.Event(), threading.Event()
        debts = Debts(records, away=lambda: None)

        def slowly(_: Debt) -> None:
            begun.set()
            assert go_on.wait(30)

        debts.ways = {"address": slowly}
        payer = threading.Thread(target=debts.pay_all)
        payer.start()
        try:
            assert begun.wait(30)
            with deadline.within(0.1), pytest.raises(Retry, match="owed"):
                debts.pay_all()
        finally:
            go_on.set()
            payer.join(timeout=30)

    def test_a_debt_is_paid_without_a_request_and_without_a_loss_of_the_store(
        self, reopen: Callable[[], Records]
    ) -> None:
        debts, paid = self.paying(reopen(), [Retry("slow"), Retry("slow still")])
        debts.start()
        try:
            debts.pay_or_owe({"what": "address", "address": "10.0.0.1"})
            until = time.monotonic() + 30
            while not paid and time.monotonic() < until:
                time.sleep(0.01)
        finally:
            debts.stop()
        assert [debt["address"] for debt in paid] == ["10.0.0.1"]
        assert reopen().debts() == []
