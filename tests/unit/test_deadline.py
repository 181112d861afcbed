"""The time a request may still take."""

import threading

import pytest

from spanlan import deadline
from spanlan.errors import Retry


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until its only element is changed."""
    now = [1000.0]
    monkeypatch.setattr("spanlan.deadline.time.monotonic", lambda: now[0])
    return now


def test_without_a_deadline_a_wait_has_its_own_limit() -> None:
    assert deadline.remaining(3.0) == 3.0
    deadline.check()


def test_a_wait_gets_what_is_left_and_never_more_than_its_limit(clock: list[float]) -> None:
    with deadline.within(8.0):
        assert deadline.remaining(5.0) == 5.0
        clock[0] += 6.0
        assert deadline.remaining(5.0) == 2.0
        deadline.check()


def test_a_deadline_that_has_passed_is_retry(clock: list[float]) -> None:
    with deadline.within(8.0):
        clock[0] += 8.0
        with pytest.raises(Retry, match="ran out of time"):
            deadline.remaining(5.0)
        with pytest.raises(Retry):
            deadline.check()


def test_a_deadline_within_a_deadline_can_only_shorten_it(clock: list[float]) -> None:
    with deadline.within(8.0):
        with deadline.within(2.0):
            assert deadline.remaining(10.0) == 2.0
        with deadline.within(60.0):
            assert deadline.remaining(60.0) == 8.0
        assert deadline.remaining(10.0) == 8.0
    assert deadline.remaining(10.0) == 10.0


def test_a_deadline_ends_with_its_block_also_when_that_fails() -> None:
    with pytest.raises(ZeroDivisionError), deadline.within(0.0):
        raise ZeroDivisionError
    assert deadline.remaining(10.0) == 10.0


def test_a_deadline_binds_its_own_thread_alone() -> None:
    found: list[float] = []
    with deadline.within(0.0):
        thread = threading.Thread(target=lambda: found.append(deadline.remaining(10.0)))
        thread.start()
        thread.join()
    assert found == [10.0]


def test_a_block_may_be_exempt_from_the_deadline_and_only_the_block(clock: list[float]) -> None:
    with deadline.within(8.0):
        clock[0] += 9.0
        with deadline.lifted():
            assert deadline.remaining(5.0) == 5.0
        with pytest.raises(Retry):
            deadline.check()
