"""The arithmetic of wanted and found."""

import gc
import sys

from hypothesis import given
from hypothesis import strategies as st

from spanlan.kernel.reconcile import Table


def test_what_is_wanted_and_not_there_is_put():
    table: Table[str, int] = Table()
    table.want("a", 1)
    assert table.steps() == ([("a", 1)], [])


def test_what_is_there_and_not_wanted_is_dropped():
    table: Table[str, int] = Table()
    table.observe("a", 1)
    assert table.steps() == ([], ["a"])


def test_what_is_there_as_wanted_needs_nothing():
    table: Table[str, int] = Table()
    table.want("a", 1)
    table.observe("a", 1)
    assert table.pending == 0
    assert table.steps() == ([], [])


def test_an_entry_that_keeps_its_key_and_changes_its_value_is_put_again():
    table: Table[str, int] = Table()
    table.want("a", 1)
    table.applied(puts=[("a", 1)])
    table.want("a", 2)
    assert table.steps() == ([("a", 2)], [])
    assert table.found("a") == 1


def test_a_wish_taken_back_before_it_was_carried_out_leaves_no_work():
    table: Table[str, int] = Table()
    table.want("a", 1)
    table.want("a", None)
    assert table.pending == 0


def test_wanting_another_map_drops_what_is_not_in_it():
    table: Table[str, int] = Table()
    table.want_all({"a": 1, "b": 2})
    table.applied(puts=table.steps().puts)
    table.want_all({"b": 3, "c": 4})
    puts, drops = table.steps()
    assert (sorted(puts), drops) == ([("b", 3), ("c", 4)], ["a"])


def test_a_dump_replaces_all_that_was_thought_to_be_there():
    table: Table[str, int] = Table()
    table.want_all({"a": 1, "b": 2})
    table.observe("stray", 9)
    table.observe_all({"a": 1, "b": 7, "other": 5})
    puts, drops = table.steps()
    assert (puts, drops) == ([("b", 2)], ["other"])


def test_a_wish_that_changed_while_its_step_was_carried_out_stays_pending():
    table: Table[str, int] = Table()
    table.want("a", 1)
    puts, _ = table.steps()
    table.want("a", 2)
    table.applied(puts=puts)
    assert table.steps() == ([("a", 2)], [])


def test_a_step_that_keeps_failing_does_not_starve_the_others():
    table: Table[int, int] = Table()
    for key in range(4):
        table.want(key, key)
    seen = []
    for _ in range(4):
        (key, _value), *_ = table.steps(limit=1).puts
        seen.append(key)
        table.failed(key)
    assert seen == [0, 1, 2, 3]
    assert table.pending == 4


def test_a_settled_table_of_many_entries_remembers_only_what_is_wanted():
    table: Table[int, int] = Table()
    entries = {key: key for key in range(10_000)}
    table.want_all(entries)
    table.observe_all(dict(entries))
    assert table.pending == 0
    gc.collect()
    assert sum(sys.getsizeof(getattr(table, slot)) for slot in table.__slots__) <= sys.getsizeof(entries) + 1000


def test_the_cost_of_one_change_does_not_grow_with_the_table():
    class Counting(int):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Counting.compared += 1
            return int(self) == other

        __hash__ = int.__hash__

    def cost(size: int) -> int:
        table: Table[Counting, Counting] = Table()
        entries = {Counting(key): Counting(key) for key in range(size)}
        table.want_all(entries)
        table.observe_all(entries)
        Counting.compared = 0
        table.want(Counting(5), Counting(6))
        puts, drops = table.steps()
        table.applied(puts, drops)
        assert table.pending == 0
        return Counting.compared

    assert cost(20_000) <= cost(20) + 4  # a few for collisions of hashes


KEYS = st.integers(0, 5)
VALUES = st.one_of(st.none(), st.integers(0, 2))
MAPS = st.dictionaries(KEYS, st.integers(0, 2))


def action(verb, *arguments, **named):
    return st.tuples(st.just(verb), st.tuples(*arguments), st.fixed_dictionaries(named))


ACTIONS = st.one_of(
    action("want", KEYS, VALUES),
    action("want_all", MAPS),
    action("somebody_else_writes", KEYS, VALUES),
    action("look", KEYS),
    action("dump"),
    action("apply", st.integers(1, 7), st.sets(KEYS), meddle=st.booleans()),
)


class World:
    """A table, the kernel it is to bring in line, and plain maps that say what the table should know."""

    def __init__(self):
        self.table: Table[int, int] = Table()
        self.kernel: dict[int, int] = {}
        self.wanted: dict[int, int] = {}
        self.seen: dict[int, int] = {}

    def want(self, key, value):
        self.table.want(key, value)
        put(self.wanted, key, value)

    def want_all(self, everything):
        self.table.want_all(everything)
        self.wanted = dict(everything)

    def somebody_else_writes(self, key, value):
        put(self.kernel, key, value)

    def look(self, key):
        self.table.observe(key, self.kernel.get(key))
        put(self.seen, key, self.kernel.get(key))

    def dump(self):
        self.table.observe_all(dict(self.kernel))
        self.seen = dict(self.kernel)

    def apply(self, limit, refused, *, meddle):
        puts, drops = self.table.steps(limit)
        steps = [*puts, *((key, None) for key in drops)]
        if meddle and steps:  # the wish changes while the step is on its way
            self.want(steps[0][0], 2)
        for key, value in steps:
            if key in refused:
                self.table.failed(key)
                continue
            put(self.kernel, key, value)
            put(self.seen, key, value)
        self.table.applied(
            [(key, value) for key, value in puts if key not in refused], [key for key in drops if key not in refused]
        )

    def check(self):
        differs = {key for key in {*self.wanted, *self.seen} if self.wanted.get(key) != self.seen.get(key)}
        puts, drops = self.table.steps()
        assert {key for key, _ in puts} | set(drops) == differs
        assert self.table.pending == len(differs)
        assert self.table.wanted == self.wanted
        assert all(self.table.found(key) == self.seen.get(key) for key in {*self.wanted, *self.seen})


def put(into, key, value):
    if value is None:
        into.pop(key, None)
    else:
        into[key] = value


@given(st.lists(ACTIONS, max_size=40))
def test_after_any_interleaving_of_wishes_sights_and_failures_the_kernel_becomes_as_wanted(actions):
    world = World()
    for verb, arguments, named in actions:
        getattr(world, verb)(*arguments, **named)
        world.check()
    world.dump()
    while world.table.pending:
        world.apply(2, set(), meddle=False)
    assert world.kernel == world.wanted
