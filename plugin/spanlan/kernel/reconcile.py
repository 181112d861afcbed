"""Wanted, found, difference: the arithmetic of every table that spanlan owns in the kernel.

A :class:`Table` holds what is wanted and *only the difference* to what was found: where the kernel is known to be
right there is nothing to remember.  So a table of 100,000 entries costs one dict, one change costs the same whatever
the size, and the difference is always at hand, never computed.

Nothing here does I/O or knows what its keys and values mean.  A table is not thread-safe: it belongs to the one writer.
"""

from collections.abc import Iterable, Mapping
from itertools import chain, islice
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Steps(NamedTuple, Generic[K, V]):
    """Work that brings the kernel nearer to what is wanted.  ``puts`` add or replace, ``drops`` remove."""

    puts: list[tuple[K, V]]
    drops: list[K]


class Table(Generic[K, V]):
    """Two maps, wanted and found, kept as one map and the places where they differ."""

    __slots__ = ("_differs", "_wanted")

    def __init__(self) -> None:
        self._wanted: dict[K, V] = {}
        # What was found, for each key where that is not what is wanted; None: nothing was found there.
        self._differs: dict[K, V | None] = {}

    def __len__(self) -> int:
        """How many entries are wanted."""
        return len(self._wanted)

    @property
    def pending(self) -> int:
        """How many entries differ: the number of steps that are left."""
        return len(self._differs)

    @property
    def wanted(self) -> Mapping[K, V]:
        """What is wanted, to read; change it with :meth:`want`."""
        return self._wanted

    def found(self, key: K) -> V | None:
        """What was last known to be there."""
        return self._differs[key] if key in self._differs else self._wanted.get(key)

    # -- what is wanted ---------------------------------------------------------------------------------------------

    def want(self, key: K, value: V | None) -> None:
        """Want ``value`` under ``key``, or None: nothing."""
        found = self.found(key)
        if value is None:
            self._wanted.pop(key, None)
        else:
            self._wanted[key] = value
        self._note(key, value, found)

    def want_all(self, wanted: Mapping[K, V]) -> None:
        """Want exactly this map, and nothing else.  ``wanted`` is not kept."""
        before, known = self._wanted, self._differs
        differs: dict[K, V | None] = {}
        for key, value in wanted.items():
            there = known[key] if key in known else before.get(key)
            if there != value:
                differs[key] = there
        left = ((key, known.get(key, value)) for key, value in before.items() if key not in wanted)
        strays = ((key, there) for key, there in known.items() if key not in wanted and key not in before)
        differs.update((key, there) for key, there in chain(left, strays) if there is not None)
        self._wanted = dict(wanted)
        self._differs = differs

    # -- what is there ----------------------------------------------------------------------------------------------

    def observe(self, key: K, value: V | None) -> None:
        """``value`` was seen under ``key``, or None: nothing is there (any more)."""
        self._note(key, self._wanted.get(key), value)

    def observe_all(self, found: Mapping[K, V]) -> None:
        """Exactly this is there: the result of a dump.  ``found`` is not kept."""
        wanted = self._wanted
        differs: dict[K, V | None] = {}
        for key, value in wanted.items():
            there = found.get(key)
            if there != value:
                differs[key] = there
        differs.update((key, there) for key, there in found.items() if key not in wanted)
        self._differs = differs

    # -- the difference ---------------------------------------------------------------------------------------------

    def steps(self, limit: int | None = None) -> Steps[K, V]:
        """The next steps, at most ``limit`` of them, those that failed longest ago first."""
        puts: list[tuple[K, V]] = []
        drops: list[K] = []
        wanted = self._wanted
        for key in islice(self._differs, limit):
            value = wanted.get(key)
            if value is None:
                drops.append(key)
            else:
                puts.append((key, value))
        return Steps(puts, drops)

    def applied(self, puts: Iterable[tuple[K, V]] = (), drops: Iterable[K] = ()) -> None:
        """These steps were carried out.  What has been wanted otherwise meanwhile stays pending."""
        wanted, differs = self._wanted, self._differs
        for key, value in puts:
            if wanted.get(key) == value:
                differs.pop(key, None)
            else:
                differs[key] = value
        for key in drops:
            self._note(key, wanted.get(key), None)

    def failed(self, key: K) -> None:
        """The step for ``key`` failed: it stays pending, behind all others, so that it cannot starve them."""
        if key in self._differs:
            self._differs[key] = self._differs.pop(key)

    def _note(self, key: K, wanted: V | None, found: V | None) -> None:
        if wanted == found:
            self._differs.pop(key, None)
        else:
            self._differs[key] = found
