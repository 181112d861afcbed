"""Threads that can be left behind."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from spanlan import deadline
from spanlan.errors import Broken, Refuse, Retry
from spanlan.libnetwork.workers import Busy, Overdue, Workers

LONG_ENOUGH_TO_BEGIN = 1.0  # seconds: a busy machine takes a while to start a thread


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def workers() -> Iterator[Workers]:
    pool = Workers(size=2, line=1)
    yield pool
    pool.close()


def test_work_is_done_in_another_thread_and_its_result_comes_back(workers):
    assert workers.run("sum", lambda: (1 + 1, threading.current_thread().name), 5) == (2, "spanlan-worker-0")


def test_an_error_of_the_work_is_raised_where_it_was_asked_for(workers):
    def refuse() -> None:
        raise Refuse("no")

    with pytest.raises(Refuse, match=r"^no$"):
        workers.run("refusal", refuse, 5)


def test_work_cannot_end_its_worker(workers):
    def leave() -> None:
        raise SystemExit

    for _ in range(5):
        with pytest.raises(Broken, match="departure tried to end its thread"):
            workers.run("departure", leave, 5)
    assert workers._threads == 1


def test_one_thread_is_enough_for_one_request_at_a_time(workers):
    for _ in range(200):
        workers.run("nothing", lambda: None, 5)
    assert workers._threads == 1


def test_the_work_sees_a_deadline_a_little_before_it_is_left_behind(workers):
    left = workers.run("look", lambda: deadline.remaining(60), 10)
    assert 5 < left < 10
    assert deadline.remaining(60) == 60


def test_work_that_is_not_done_in_time_is_left_behind_with_its_place_named(workers, gate):
    with pytest.raises(Overdue, match=r"^wait was not finished within 1 s, it waits in ") as overdue:
        workers.run("wait", lambda: gate.wait(30), LONG_ENOUGH_TO_BEGIN)
    assert isinstance(overdue.value, Retry)


def test_work_left_behind_keeps_its_place_and_frees_it_when_it_ends(workers, gate):
    for _ in range(2):
        with pytest.raises(Overdue):
            workers.run("wait", lambda: gate.wait(30), LONG_ENOUGH_TO_BEGIN)
    with pytest.raises(
        Busy, match=r"was not begun within 0\.05 s: all 2 workers are busy, the longest for .* with wait"
    ):
        workers.run("more", lambda: None, 0.05)
    gate.set()
    assert workers.run("more", lambda: "done", 5) == "done"


def test_work_that_nobody_waits_for_any_more_is_never_begun(workers, gate):
    done = []
    for _ in range(2):
        with pytest.raises(Overdue):
            workers.run("wait", lambda: gate.wait(30), LONG_ENOUGH_TO_BEGIN)
    with pytest.raises(Busy):
        workers.run("too late", lambda: done.append("too late"), 0.05)
    gate.set()
    workers.run("in time", lambda: done.append("in time"), 5)
    workers.run("after", lambda: done.append("after"), 5)
    assert done == ["in time", "after"]


def test_beyond_the_line_nobody_waits_in_vain(workers, gate):
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(workers.run, "wait", lambda: gate.wait(30), 20) for _ in range(3)]
        ends_at = time.monotonic() + 10
        while not workers._waiting:
            assert time.monotonic() < ends_at
            time.sleep(0.005)
        begun_at = time.monotonic()
        with pytest.raises(Busy, match="all 2 workers are busy"):
            workers.run("more", lambda: None, 20)
        assert time.monotonic() - begun_at < 10  # of the 20 s that it would wait in line
        gate.set()
        assert [job.result() for job in running] == [True] * 3


def test_many_at_once_are_all_done_by_no_more_threads_than_allowed():
    workers = Workers(size=4, line=100)
    names = set()

    def work(number: int) -> int:
        names.add(threading.current_thread().name)
        return number

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(lambda number: workers.run("work", lambda: work(number), 20), range(500))) == list(
            range(500)
        )
    assert len(names) <= 4
    workers.close()


def test_a_closed_pool_takes_no_more_work_and_its_threads_end(workers):
    workers.run("nothing", lambda: None, 5)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("spanlan-worker-")]
    workers.close()
    with pytest.raises(Busy, match="spanlan is stopping"):
        workers.run("nothing", lambda: None, 5)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
