"""What follows from new addresses of the host, and what is told to the LAN: both beside the requests."""

import logging
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from spanlan.control import announcing, renumbering
from spanlan.control.announcing import Announcing
from spanlan.control.renumbering import Renumbering
from spanlan.errors import Broken, Gone, Retry
from spanlan.kernel.announce import Announcement

BOUND = 20.0  # seconds; nothing takes that long unless it never comes


class Look:
    """Counts looks, and fails as it is told."""

    def __init__(self, *failures: Exception | None) -> None:
        self._failures = list(failures)
        self._condition = threading.Condition()
        self.count = 0

    def __call__(self) -> None:
        with self._condition:
            self.count += 1
            self._condition.notify_all()
            failure = self._failures.pop(0) if self._failures else None
        if failure is not None:
            raise failure

    def seen(self, count: int) -> bool:
        with self._condition:
            return self._condition.wait_for(lambda: self.count >= count, BOUND)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], None]], Renumbering]]:
    monkeypatch.setattr(renumbering, "_SETTLE", 0.01)
    monkeypatch.setattr(renumbering, "_PAUSE", 0.01)
    running: list[Renumbering] = []

    def start(look: Callable[[], None]) -> Renumbering:
        running.append(Renumbering(look))
        running[-1].start()
        return running[-1]

    yield start
    for one in running:
        one.stop()
        assert not one._thread.is_alive()


Start = Callable[[Callable[[], None]], Renumbering]


class TestRenumbering:
    def test_an_address_that_came_or_went_makes_it_look(self, started: Start) -> None:
        look = Look()
        started(look).addresses_changed()
        assert look.seen(1)

    def test_without_a_change_nobody_looks(self, started: Start) -> None:
        look = Look()
        started(look).stop()
        assert look.count == 0

    def test_many_changes_in_one_go_are_one_look(self, monkeypatch: pytest.MonkeyPatch, started: Start) -> None:
        monkeypatch.setattr(renumbering, "_SETTLE", 0.3)
        look = Look()
        one = started(look)
        for _ in range(100):
            one.addresses_changed()
        assert look.seen(1)
        one.stop()
        assert look.count == 1

    def test_a_change_while_it_looks_makes_it_look_again(self, started: Start) -> None:
        again: list[Renumbering] = []

        class Changing(Look):
            def __call__(self) -> None:
                super().__call__()
                if self.count == 1:
                    again[0].addresses_changed()

        look = Changing()
        again.append(Renumbering(look))
        again[0].start()
        again[0].addresses_changed()
        assert look.seen(2)
        again[0].stop()

    def test_what_failed_is_tried_again(self, started: Start) -> None:
        look = Look(Retry("the store is away"), Broken("still"))
        started(look).addresses_changed()
        assert look.seen(3)

    def test_a_surprise_does_not_end_it(self, started: Start, caplog: pytest.LogCaptureFixture) -> None:
        look = Look(ValueError("surprise"))
        one = started(look)
        one.addresses_changed()
        assert look.seen(1)
        one.addresses_changed()
        assert look.seen(2)
        assert "failed unexpectedly" in caplog.text

    def test_it_ends_while_it_waits_to_try_again(self, monkeypatch: pytest.MonkeyPatch, started: Start) -> None:
        monkeypatch.setattr(renumbering, "_PAUSE", 3600.0)
        look = Look(Retry("the store is away"))
        one = started(look)
        one.addresses_changed()
        assert look.seen(1)
        one.stop()
        assert not one._thread.is_alive()


TOLD = Announcement("spanlan endpoint=e1", (ip_address("192.0.2.1"), ip_address("2001:db8::1")), None)


class TestAnnouncing:
    @pytest.fixture
    def announce(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Exception | None], Announcing]]:
        """Announcing whose kernel side ends as told; stopped when the test is over."""
        made: list[Announcing] = []

        def make(failure: Exception | None = None) -> Announcing:
            def fake(announcement: Announcement, sandbox: str | None) -> int:
                self.asked.append((announcement, sandbox))
                if failure is not None:
                    raise failure
                return 2

            monkeypatch.setattr(announcing, "announce", fake)
            made.append(Announcing())
            return made[-1]

        self.asked: list[tuple[Announcement, str | None]] = []
        yield make
        for one in made:
            one._pool.shutdown(wait=True)

    @staticmethod
    def finished(one: Announcing) -> None:
        one._pool.shutdown(wait=True)

    def test_it_announces_in_the_sandbox_that_is_named(self, announce: Callable[..., Announcing]) -> None:
        one = announce()
        one.announce(TOLD, "/run/netns/x")
        one.announce(TOLD, "")
        self.finished(one)
        assert sorted(self.asked, key=str) == sorted([(TOLD, "/run/netns/x"), (TOLD, None)], key=str)

    def test_it_returns_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        go_on = threading.Event()
        monkeypatch.setattr(announcing, "announce", lambda *_: go_on.wait(BOUND) and 0)
        one = Announcing()
        for _ in range(50):
            one.announce(TOLD, "")
        assert not go_on.is_set()
        one.stop()
        go_on.set()
        self.finished(one)

    @pytest.mark.parametrize(
        ("failure", "level", "text"),
        [
            (Retry("no link"), logging.WARNING, "192.0.2.1, 2001:db8::1 could not be announced on the LAN"),
            (Broken("no raw sockets"), logging.WARNING, "no raw sockets"),
            (ValueError("surprise"), logging.ERROR, "ended unexpectedly"),
        ],
    )
    def test_a_failure_is_only_told(
        self,
        announce: Callable[..., Announcing],
        caplog: pytest.LogCaptureFixture,
        failure: Exception,
        level: int,
        text: str,
    ) -> None:
        one = announce(failure)
        one.announce(TOLD, "")
        self.finished(one)
        assert [record.levelno for record in caplog.records] == [level]
        assert text in caplog.text

    def test_a_container_that_has_ended_already_is_nobodys_trouble(
        self, announce: Callable[..., Announcing], caplog: pytest.LogCaptureFixture
    ) -> None:
        one = announce(Gone("ended"))
        one.announce(TOLD, "")
        self.finished(one)
        assert caplog.text == ""

    def test_a_machine_that_cannot_announce_says_so_once(
        self, announce: Callable[..., Announcing], caplog: pytest.LogCaptureFixture
    ) -> None:
        one = announce(Broken("no raw sockets"))
        for _ in range(5):
            one._announce(TOLD, "")
        assert len(caplog.records) == 1

    def test_after_the_end_it_does_nothing(self, announce: Callable[..., Announcing]) -> None:
        one = announce()
        one.stop()
        one.announce(TOLD, "")
        self.finished(one)
        assert self.asked == []
