"""How a daemon is told to end, at the worst of moments."""

import io
import logging
import signal
import sys
from collections.abc import Iterator

import pytest

from spanlan.daemon import listen_for_the_end

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class BusyStream(io.StringIO):
    """A log that is told to end while a line is being written to it, and takes no other line meanwhile: as files do."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__()
        self._number = number
        self._busy = False

    def write(self, text: str) -> int:
        if self._busy:
            raise RuntimeError("reentrant call")
        self._busy = True
        signal.raise_signal(self._number)
        self._busy = False
        return super().write(text)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_the_midst_of_a_log_line_is_not_lost_and_neither_is_the_line(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = BusyStream(number)
    monkeypatch.setattr(sys, "stderr", stream)
    wait_for_the_end = listen_for_the_end()
    logging.StreamHandler(stream).handle(logging.LogRecord("any", logging.INFO, "", 0, "listening", None, None))
    assert wait_for_the_end() is number
    assert stream.getvalue() == "listening\n"
