"""How the daemon logs: one line a record on standard error, for the journal, ``docker plugin`` logs and eyes alike.

    2026-11-22T03:14:15.926Z info sync spanlan.control.loop: segment blue: 2 entries written

Time (UTC), level, thread, logger, message; what a message says stays on its line, also a traceback, so that ``grep``
finds whole records.  Secrets are kept out at the source: no setting holds one and requests are never logged whole.
"""

import json
import logging
import sys
import time
from typing import Final

_LIBRARIES_AT: Final = logging.WARNING


class LineFormatter(logging.Formatter):
    """Formats a record as one line whatever is in it."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        """The time in UTC with milliseconds."""
        return super().formatTime(record, datefmt)

    def format(self, record: logging.LogRecord) -> str:
        """The line; control characters (an attacker's newline among them) are written as JSON escapes."""
        head = f"{self.formatTime(record)} {record.levelname.lower()} {record.threadName} {record.name}: "
        text = record.getMessage()
        if record.exc_info:
            text += " | " + self.formatException(record.exc_info)
        return head + one_line(text)


def one_line(text: str) -> str:
    """``text`` with every control character escaped."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)


def configure_logging(level: str) -> None:
    """Log to standard error: our own records from ``level`` (debug, info, warning, error) on, libraries' warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(_LIBRARIES_AT)
    logging.getLogger("spanlan").setLevel(level.upper())
    logging.captureWarnings(capture=True)
