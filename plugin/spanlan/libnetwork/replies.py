"""The one place that turns an error into a reply for dockerd.

NetworkDriver errors are read from ``Err`` and IpamDriver errors from ``Error``; the wrong key means success to dockerd,
so both are sent (protocol, gotcha G1).  Only HTTP 200 is success for its client, and every other status only makes the
message worse to read, so errors of spanlan go out with 200 and the transport's own mistakes (a wrong verb, an unknown
method, a body that is too big) with their status and the same body.
"""

import json
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from spanlan.errors import Broken, Gone, Refuse, Retry
from spanlan.libnetwork.workers import Busy, Overdue

_log = logging.getLogger(__name__)

OK = "ok"
_OUTCOMES: tuple[tuple[type[Exception], str, int], ...] = (
    (Overdue, "overdue", logging.WARNING),
    (Busy, "busy", logging.WARNING),
    (Refuse, "refuse", logging.INFO),
    (Retry, "retry", logging.WARNING),
    (Gone, "gone", logging.INFO),
    (Broken, "broken", logging.ERROR),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to dockerd, and the word for it in the metrics.

    ``outcome`` is one of ok, refuse, retry, gone, broken, overdue, busy, internal and unknown.
    """

    body: Mapping[str, object]
    outcome: str = OK
    status: int = 200


def complaint(text: str) -> Mapping[str, object]:
    """The body of a reply that says no, readable by both halves of dockerd."""
    return {"Err": text, "Error": text}


def encode(body: Mapping[str, object]) -> bytes:
    """The bytes of a reply's body."""
    return json.dumps(body, separators=(",", ":")).encode()


def answer_error(method: str, error: Exception, *, removal: bool) -> Answer:
    """The reply to ``method`` when it ended in ``error``.

    What is not there needs no removal, so Gone is success there.  An error that spanlan did not raise on purpose is
    a bug: its traceback goes to the log under a short id, and only the id goes to the user.
    """
    for kind, outcome, level in _OUTCOMES:
        if isinstance(error, kind):
            _log.log(level, "%s: %s: %s", method, outcome, error)
            return Answer({} if kind is Gone and removal else complaint(str(error)), outcome)
    mark = secrets.token_hex(4)
    _log.error("%s: internal error (%s)", method, mark, exc_info=error)
    return Answer(complaint(f"internal error in {method}, see spanlan's log ({mark})"), "internal")
