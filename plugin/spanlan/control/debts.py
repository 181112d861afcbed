"""Removals that the store has yet to be told.

dockerd tells a removal once and swallows its failure.  So a removal that the store could not take is written down as a
debt.  A thread pays it when the store is back, and who claims something new pays first: what a container gave back
while the store was away must not stand in the way of the next one.

A debt that cannot be paid (its record in the store cannot be read) stays, is told once, and holds up nothing.
"""

import logging
import threading
from collections.abc import Callable, Mapping

from spanlan import deadline
from spanlan.control.records import Debt, Records
from spanlan.errors import Broken, Gone, Refuse, Retry, SpanlanError

log = logging.getLogger(__name__)

Pay = Callable[[Debt], None]

_FIRST_PAUSE = 1.0  # seconds after a debt could not be paid
_LONGEST_PAUSE = 60.0
_LONGEST_WAIT = 6.0  # seconds for another thread that is paying


class Debts:
    """Pays what is owed.  ``ways`` says, for each kind of debt, how; ``away``, why the store cannot be reached now."""

    def __init__(self, records: Records, *, away: Callable[[], str | None]) -> None:
        self._records = records
        self._away = away
        self.ways: Mapping[str, Pay] = {}
        self._paying = threading.Lock()
        self._told: set[str] = set()
        self._due = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="debts", daemon=True)

    def start(self) -> None:
        """Begin to pay by itself."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is owed stays written down."""
        self._stopping = True
        self._due.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def pay_soon(self) -> None:
        """The store is back, or something is owed."""
        self._due.set()

    def pay_or_owe(self, debt: Debt) -> None:
        """Carry a removal out now, or write it down if that cannot be done."""
        try:
            away = self._away()
            if away is not None:
                raise Retry(away)  # noqa: TRY301 - as if it had been tried; each try would take seconds
            self._pay(debt)
        except (Retry, Broken) as error:
            log.warning("remembered for later: %s (%s)", _text(debt), error)
            self.owe(debt)

    def owe(self, debt: Debt) -> None:
        """Write a removal down, and see to it that it is made up for also if nobody ever asks for anything again."""
        self._records.owe(debt)
        self.pay_soon()

    def pay_all(self) -> None:
        """Pay what is owed, oldest first.  Raises Retry if the store is away (still)."""
        if not self._records.debts():
            return
        if not self._paying.acquire(timeout=deadline.remaining(_LONGEST_WAIT)):
            raise Retry(f"{len(self._records.debts())} removals are owed to the store and are just being made up for")
        try:
            for key, debt in self._records.debts():
                self._settle(key, debt)
        finally:
            self._paying.release()

    def _settle(self, key: str, debt: Debt) -> None:
        try:
            self._pay(debt)
        except Retry:
            raise
        except Exception as error:
            if key not in self._told:
                self._told.add(key)
                if isinstance(error, SpanlanError):
                    log.error("cannot be made up for: %s (%s)", _text(debt), error)  # noqa: TRY400 - the text says it
                else:
                    log.exception("cannot be made up for: %s", _text(debt))
            return
        self._records.settle(key)
        self._told.discard(key)
        log.info("made up for: %s", _text(debt))

    def _run(self) -> None:
        pause: float | None = 0.0
        while True:
            if self._due.wait(pause):
                pause = 0.0
            self._due.clear()
            if self._stopping:
                return
            if not self._records.debts():
                pause = None
                continue
            pause = min(_LONGEST_PAUSE, 2 * pause) if pause else _FIRST_PAUSE
            if self._away() is not None:
                continue  # who finds the store back says so
            try:
                self.pay_all()
            except SpanlanError as error:
                log.info("what is owed to the store has to wait: %s", error)

    def _pay(self, debt: Debt) -> None:
        way = self.ways.get(debt["what"])
        try:
            if way is not None:
                way(debt)
        except (Gone, Refuse) as error:
            log.info("nothing left to do for: %s (%s)", _text(debt), error)


def _text(debt: Debt) -> str:
    return ", ".join(f"{name} {value}" for name, value in debt.items())
