"""What the lab needs of this machine, and how to get it."""

import os
import shutil
from collections.abc import Iterable

from spanlan.errors import Refuse
from spanlan.lab.commands import search_path

PACKAGES = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "containerd": "containerd",
    "iptables": "iptables",
    "etcd": "etcd-server",
    "etcdctl": "etcd-client",
    "busybox": "busybox-static",
    "ip": "iproute2",
    "bridge": "iproute2",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "sysctl": "procps",
    "ldd": "libc-bin",
    "sh": "dash",
    "ping": "iputils-ping",
    "curl": "curl",
    "iperf3": "iperf3",
    "tcpdump": "tcpdump",
}
"""Program to the Debian package that has it."""


def check_root() -> None:
    """Raise Refuse unless we are root: others can neither make a lab nor see all of it."""
    if os.geteuid() != 0:
        raise Refuse("a lab is made of namespaces with Docker engines in them: run this as root (sudo)")


def check() -> None:
    """Raise Refuse if the lab cannot be built here: not root, or programs are missing (the message has the cure)."""
    check_root()
    missing = [program for program in PACKAGES if path_of(program) is None]
    if missing:
        raise Refuse(f"the lab needs {', '.join(missing)}, not found here: {cure(missing)}")


def path_of(program: str) -> str | None:
    """Where a program is."""
    return shutil.which(program, path=search_path())


def cure(programs: Iterable[str]) -> str:
    """The command line that installs the programs on Debian."""
    packages = sorted({PACKAGES[program] for program in programs})
    return f"apt-get install --no-install-recommends {' '.join(packages)}"
