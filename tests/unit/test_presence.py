"""Who is there, who is missed, and who is withdrawn."""

from spanlan.control.presence import Presence


def trusted(grace: float = 3.0) -> Presence:
    presence = Presence(grace)
    presence.replace(["a", "b"], now=0.0)
    presence.trust(in_sync=True, now=0.0)
    return presence


def test_a_host_that_goes_is_withdrawn_after_the_grace_and_not_before() -> None:
    presence = trusted()
    presence.vanish("b", now=10.0)
    assert presence.withdrawn(12.9) == frozenset()
    assert presence.next_expiry(12.9) == 13.0
    assert presence.withdrawn(13.0) == {"b"}
    assert presence.next_expiry(13.0) is None


def test_a_host_that_comes_back_within_the_grace_is_never_withdrawn() -> None:
    presence = trusted()
    presence.vanish("b", now=10.0)
    presence.appear("b")
    assert presence.withdrawn(100.0) == frozenset()


def test_a_host_that_takes_part_but_was_never_seen_is_missed_from_then_on() -> None:
    presence = trusted()
    presence.expect(["a", "c"], now=5.0)
    assert presence.withdrawn(7.9) == frozenset()
    assert presence.withdrawn(8.0) == {"c"}


def test_a_snapshot_without_a_host_is_as_good_as_its_removal() -> None:
    presence = trusted()
    presence.replace(["a"], now=10.0)
    assert presence.withdrawn(13.0) == {"b"}
    assert presence.alive == {"a"}


def test_nothing_is_certain_while_the_store_is_away() -> None:
    presence = trusted()
    presence.trust(in_sync=False, now=1.0)
    assert not presence.certain


def test_the_grace_starts_anew_when_the_store_is_back() -> None:
    presence = trusted()
    presence.vanish("b", now=1.0)
    presence.trust(in_sync=False, now=2.0)
    presence.trust(in_sync=True, now=60.0)
    assert presence.withdrawn(62.9) == frozenset()
    assert presence.withdrawn(63.0) == {"b"}
