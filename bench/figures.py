"""Samples, their percentiles, and tables a person can read."""

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Tell = Callable[[str], None]


def tell(line: str) -> None:
    """Say what is going on; progress is not part of the result."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


@dataclass(slots=True)
class Samples:
    """Measured values in seconds (or bytes)."""

    values: list[float] = field(default_factory=list)

    def add(self, value: float) -> None:
        """One more."""
        self.values.append(value)

    def percentile(self, share: float) -> float:
        """The smallest value that is not exceeded by ``share`` (0 to 1) of all."""
        ordered = sorted(self.values)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    @property
    def p50(self) -> float:
        """The median."""
        return self.percentile(0.5)

    @property
    def p99(self) -> float:
        """What one in a hundred exceeds."""
        return self.percentile(0.99)

    def as_record(self) -> dict[str, float]:
        """For the JSON file; seconds stay seconds."""
        return {
            "n": len(self.values),
            "min": min(self.values),
            "p50": self.p50,
            "p99": self.p99,
            "max": max(self.values),
        }


def milliseconds(seconds: float) -> str:
    """Three digits that count."""
    value = 1000 * seconds
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def megabytes(size: float) -> str:
    """Of 2**20 bytes."""
    return f"{size / 2**20:.1f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, its columns aligned: the first to the left, the others to the right."""
    widths = [max(2, *(len(row[column]) for row in [head, *rows])) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return " | ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)])

    rule = " | ".join(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "\n".join(f"| {text} |" for text in [line(head), rule, *(line(row) for row in rows)])


def load() -> tuple[float, float, float]:
    """How busy the machine is: the load averages of 1, 5 and 15 minutes."""
    return os.getloadavg()


def resident() -> int:
    """Bytes of memory of this process (RSS)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def environment() -> dict[str, str]:
    """Of a process that shall find this package and spanlan."""
    import spanlan  # noqa: PLC0415 - for its place alone

    places = (Path(__file__).parent.parent, Path(spanlan.__file__).parent.parent)
    return {"PYTHONPATH": os.pathsep.join(map(str, places)), "PYTHONDONTWRITEBYTECODE": "1"}


def records(samples: Mapping[str, Samples]) -> dict[str, dict[str, float]]:
    """Several samples for the JSON file."""
    return {name: each.as_record() for name, each in samples.items()}
