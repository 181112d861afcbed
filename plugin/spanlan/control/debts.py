"""Removals that the store has yet to be told.

dockerd tells a removal once and swallows its failure.  So a removal that the store could not take is written down as a
debt and paid when the store is back, and before anything new is claimed: what a container gave back while the store was
away must not stand in the way of the next one.
"""

import logging
import threading
from collections.abc import Callable, Mapping

from spanlan.control.records import Debt, Records
from spanlan.errors import Gone, Refuse, Retry, SpanlanError

log = logging.getLogger(__name__)

Pay = Callable[[Debt], None]


class Debts:
    """Pays what is owed.  ``ways`` says, for each kind of debt, how; ``away``, why the store cannot be reached now."""

    def __init__(self, records: Records, *, away: Callable[[], str | None]) -> None:
        self._records = records
        self._away = away
        self.ways: Mapping[str, Pay] = {}
        self._paying = threading.Lock()

    def pay_or_owe(self, debt: Debt) -> None:
        """Carry a removal out now, or write it down if the store is away."""
        try:
            away = self._away()
            if away is not None:
                raise Retry(away)  # noqa: TRY301 - as if it had been tried; each try would take seconds
            self._pay(debt)
        except Retry as error:
            log.warning("the store is away, remembered for later: %s (%s)", _text(debt), error)
            self._records.owe(debt)

    def pay_all(self) -> None:
        """Pay what is owed, oldest first.  Raises Retry if the store is away (still)."""
        if not self._records.debts():
            return
        with self._paying:
            for key, debt in self._records.debts():
                self._pay(debt)
                self._records.settle(key)
                log.info("made up for: %s", _text(debt))

    def try_to_pay_all(self) -> None:
        """Pay what is owed as far as that works now."""
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
