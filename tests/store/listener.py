"""Someone who listens to a watch: collects its events in a thread, and keeps what they say the store holds."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from spanlan.store.base import Changes, Deleted, Entry, InSync, Lost, Snapshot, Store, WatchEvent

PATIENCE = 15.0


class Listener:
    """Listens to ``prefix`` of ``store`` until the end of the block."""

    def __init__(self, store: Store, prefix: str) -> None:
        self.events: list[WatchEvent] = []
        self.held: dict[str, Entry] = {}
        self.watch = store.watch(prefix)
        self.error: BaseException | None = None
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._listen, name="listener", daemon=True)
        self._thread.start()

    @property
    def changes(self) -> list[Entry | Deleted]:
        """Every change, in the order in which it was heard of."""
        return [change for event in self.events if isinstance(event, Changes) for change in event.changes]

    @property
    def deleted(self) -> list[str]:
        """The keys that were said to be removed."""
        return [change.key for change in self.changes if isinstance(change, Deleted)]

    def wait_for(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Wait until ``condition`` holds; it is looked at after each event."""
        with self._condition:
            assert self._condition.wait_for(condition, seconds), f"did not come: events were {self.events[-20:]}"

    def wait_until_in_sync(self) -> Self:
        """Wait for the first InSync."""
        self.wait_for(lambda: any(isinstance(event, InSync) for event in self.events))
        return self

    def wait_for_revision(self, revision: int) -> None:
        """Wait until what was written at ``revision`` (under the prefix) has been heard of."""
        self.wait_for(lambda: any(not isinstance(event, Lost) and event.revision >= revision for event in self.events))

    def ended_within(self, seconds: float) -> bool:
        """Whether the iteration ends."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _listen(self) -> None:
        try:
            for event in self.watch:
                with self._condition:
                    self.events.append(event)
                    self._fold(event)
                    self._condition.notify_all()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self.error = error

    def _fold(self, event: WatchEvent) -> None:
        if isinstance(event, Snapshot):
            self.held = {entry.key: entry for entry in event.entries}
        elif isinstance(event, Changes):
            for change in event.changes:
                if isinstance(change, Deleted):
                    del self.held[change.key]
                else:
                    self.held[change.key] = change

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.watch.close()
        assert self.ended_within(PATIENCE), "the watch was closed and its iteration did not end"
        if self.error is not None and error is None:
            raise self.error
