"""Watching a watch: what it yielded so far, gathered by a thread of its own."""

import threading
from collections.abc import Callable, Iterable
from typing import Any, Self

from store.etcd_server import wait_until


class Followed:
    """Iterates over ``watch`` in a thread and keeps all it yields in ``seen``; as a context it closes the watch."""

    def __init__(self, watch: Any) -> None:
        self._watch = watch
        self.seen: list[Any] = []
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._follow, name="followed")

    def _follow(self) -> None:
        iterable: Iterable[Any] = self._watch
        try:
            for happening in iterable:
                self.seen.append(happening)
        except Exception as error:  # noqa: BLE001 - handed to the test
            self.error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._watch.close()
        self._thread.join(15)
        assert not self._thread.is_alive(), "a closed watch does not end"

    @property
    def ended(self) -> bool:
        """Whether the iteration is over."""
        return not self._thread.is_alive()

    def wait(self, condition: Callable[[list[Any]], bool], seconds: float = 10.0) -> list[Any]:
        """Return what was seen as soon as ``condition`` holds of it."""
        wait_until(
            lambda: self.error is not None or condition(self.seen),
            seconds,
            lambda: f"not within {seconds} s; the watch yielded {self.seen[-10:]}",
        )
        if self.error is not None and not condition(self.seen):
            raise self.error
        return self.seen

    def wait_for(self, kind: type, seconds: float = 10.0, *, after: int = 0) -> Any:
        """The first of what was seen that is of this kind, from number ``after`` on."""
        self.wait(lambda seen: any(isinstance(one, kind) for one in seen[after:]), seconds)
        return next(one for one in self.seen[after:] if isinstance(one, kind))
