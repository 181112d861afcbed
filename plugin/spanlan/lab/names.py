"""What a lab's parts are called and where they lie.

Everything a lab makes carries the lab's name in a place that the kernel or the file system shows: its network
namespaces, its control groups, its two folders, and one environment variable in each of its processes.  That is what
lets ``spanlan lab down`` find all of it without any record of what ``up`` did.  Nothing here does any work.
"""

from dataclasses import dataclass
from pathlib import Path

from spanlan.errors import Refuse

RUN_ROOT = Path("/run/spanlan-lab")
"""Logs, PID files and the lab's own record; gone after a reboot."""
DISK_ROOT = Path("/var/lib/spanlan-lab")
"""The hosts' disks: images and state, too big for a tmpfs."""
CACHE_ROOT = Path("/var/cache/spanlan-lab")
"""The container image, made once of this machine's own programs."""
NETNS_ROOT = Path("/run/netns")
CGROUP_ROOT = Path("/sys/fs/cgroup")

DEFAULT_NAME = "lab"
PREFIX = "spanlan-lab."
MARK = "PART_OF_SPANLAN_LAB"
"""Environment variable by which a process is known as a lab's: ``NAME/ROLE``.

Not ``SPANLAN_…``: those are the daemon's settings, and it refuses one that it does not know.
"""
ETCD_ROLE = "etcd"
LAN = "lan"

LONGEST_NAME = 32
MOST_HOSTS = 200
LAN_ADDRESS = "10.99.0.250"
LAN_ADDRESS6 = "fd99::250"
LAN_MAC = "02:99:00:00:00:fa"


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one lab's parts.  Two labs with different names share none of them."""

    lab: str

    def __post_init__(self) -> None:
        """Refuse a name that could not be told apart from another's inside a longer name."""
        plain = self.lab.replace("-", "a")
        if not (len(self.lab) <= LONGEST_NAME and plain.isascii() and plain.isalnum() and self.lab[0].isalnum()):
            raise Refuse(
                f"a lab cannot be named {self.lab!r}: use 1 to {LONGEST_NAME} letters, digits and '-', "
                "starting with a letter or digit"
            )

    @property
    def run_dir(self) -> Path:
        """Folder of logs, PID files and the record."""
        return RUN_ROOT / self.lab

    @property
    def disk_dir(self) -> Path:
        """Folder of the disks."""
        return DISK_ROOT / self.lab

    @property
    def record(self) -> Path:
        """The file that says what kind of lab this is; without it the lab can still be taken down."""
        return self.run_dir / "lab.json"

    @property
    def prefix(self) -> str:
        """What the names of this lab's namespaces and control groups start with; no other lab's do."""
        return f"{PREFIX}{self.lab}."

    def part(self, which: str) -> str:
        """Name of a network namespace or control group: of ``lan`` or of a host."""
        return f"{self.prefix}{which}"

    def netns(self, which: str) -> Path:
        """File of the network namespace of ``lan`` or of a host, as ip-netns(8) keeps it."""
        return NETNS_ROOT / self.part(which)

    def mark(self, role: str) -> str:
        """Value of the mark in the environment of the process with this role."""
        return f"{self.lab}/{role}"


def host_name(number: int) -> str:
    """Name of the host with this number, counted from 1."""
    return f"host{number}"
