"""Metrics: facts go in, numbers come out, from any thread."""

from threading import Thread

import pytest
from prometheus_client.exposition import generate_latest

from spanlan.errors import Broken, Gone, Refuse, Retry
from spanlan.metrics import Metrics


@pytest.fixture
def metrics():
    return Metrics()


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Refuse("x"), "refused"),
        (Retry("x"), "retry"),
        (Gone("x"), "gone"),
        (Broken("x"), "broken"),
        (KeyError(), "broken"),
    ],
)
def test_a_failed_handler_is_counted_by_what_its_sender_does_next(metrics, error, outcome):
    with pytest.raises(type(error)), metrics.handling("NetworkDriver.Join"):
        raise error
    assert value(metrics, "spanlan_handler_seconds_count", method="NetworkDriver.Join", outcome=outcome) == 1


def test_a_handler_that_succeeds_is_timed(metrics):
    with metrics.handling("NetworkDriver.Join"):
        pass
    labels = {"method": "NetworkDriver.Join", "outcome": "ok"}
    assert value(metrics, "spanlan_handler_seconds_count", **labels) == 1
    assert 0 < value(metrics, "spanlan_handler_seconds_sum", **labels) < 1


def test_facts_of_the_store_and_the_kernel_become_numbers(metrics):
    metrics.watch_lost()
    metrics.set_in_sync(True)
    metrics.sync_passed(0.01)
    metrics.written("fdb", 3)
    metrics.set_pending("blue", 7)
    assert value(metrics, "spanlan_store_watch_lost_total") == 1
    assert value(metrics, "spanlan_store_in_sync") == 1
    assert value(metrics, "spanlan_sync_pass_seconds_count", outcome="ok") == 1
    assert value(metrics, "spanlan_kernel_entries_written_total", table="fdb") == 3
    assert value(metrics, "spanlan_sync_pending", segment="blue") == 7


def test_a_daemon_starts_out_of_sync(metrics):
    assert value(metrics, "spanlan_store_in_sync") == 0


def test_the_numbers_of_a_segment_go_when_it_goes(metrics):
    metrics.set_pending("blue", 7)
    metrics.forget_segment("blue")
    metrics.forget_segment("blue")
    assert value(metrics, "spanlan_sync_pending", segment="blue") is None


def test_two_daemons_in_one_process_do_not_mix_their_numbers(metrics):
    metrics.watch_lost()
    assert value(Metrics(), "spanlan_store_watch_lost_total") == 0


def test_counts_from_many_threads_add_up(metrics):
    def count():
        for _ in range(1000):
            metrics.written("neighbour", 1)

    threads = [Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(metrics, "spanlan_kernel_entries_written_total", table="neighbour") == 4000


def test_every_name_is_ours_and_explained(metrics):
    lines = generate_latest(metrics.registry).decode().splitlines()
    explained = {line.split()[2] for line in lines if line.startswith("# HELP") and len(line.split()) > 3}
    typed = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert typed
    assert all(name.startswith("spanlan_") for name in typed)
    assert typed <= explained
