"""Finding and removing all that a lab has on this machine, with no other knowledge than its name.

``spanlan lab down`` must work after any crash of the lab itself, so nothing here reads the lab's record: processes are
found by their mark, namespaces and control groups by their prefix, mounts and files by the lab's two folders.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from spanlan.errors import Broken
from spanlan.lab import commands, processes
from spanlan.lab.host import MOUNT_POINTS
from spanlan.lab.names import CGROUP_ROOT, DISK_ROOT, NETNS_ROOT, PREFIX, RUN_ROOT, Names

_SECONDS = 20.0
_MADE = RUN_ROOT / "mount-points-made"


def labs() -> list[str]:
    """Names of all labs that left a trace on this machine, whole or in ruins."""
    found = {mark.split("/")[0] for _, mark in processes.marked()}
    found |= {folder.name for root in (RUN_ROOT, DISK_ROOT) for folder in _entries(root) if folder.is_dir()}
    found |= {path.name.removeprefix(PREFIX).split(".")[0] for path in (*_netns(PREFIX), *_cgroups(PREFIX))}
    return sorted(found)


def traces(names: Names) -> list[str]:
    """Everything that one lab has on this machine, in words; empty when nothing is left."""
    return [
        *(f"process {pid} ({mark})" for pid, mark in processes.marked(names.lab)),
        *(f"network namespace {path.name}" for path in _netns(names.prefix)),
        *(f"control group {path}" for path in _cgroups(names.prefix)),
        *(f"mount {path}" for path in _mounts(names)),
        *(f"folder {path}" for path in (names.run_dir, names.disk_dir) if path.exists()),
    ]


def remove(names: Names) -> None:
    """Remove every trace of a lab; raises Broken that lists what cannot be removed.

    Nothing is done gently: the hosts' first processes are killed, and the kernel ends all that runs in them.
    """
    commands.until(lambda: _no_process_left(names), seconds=_SECONDS, what=f"the end of lab {names.lab}'s processes")
    for path in _netns(names.prefix):
        commands.run(["ip", "netns", "del", path.name], check=False)
    commands.until(
        lambda: _no_cgroup_left(names), seconds=_SECONDS, what=f"the end of lab {names.lab}'s control groups"
    )
    for mount in sorted(_mounts(names), reverse=True):
        commands.run(["umount", "--lazy", mount], check=False)
    if not _mounts(names):  # never delete through a mount into what is not ours
        for folder in (names.run_dir, names.disk_dir):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder)
    left = traces(names)
    if left:
        raise Broken(f"lab {names.lab} cannot be removed whole; left are: {'; '.join(left)}")
    _forget_mount_points()


def ensure_mount_points() -> None:
    """Make the folders that hosts mount their own over, and remember which this machine did not have."""
    made = [target for target in MOUNT_POINTS if not Path(target).exists()]
    for target in made:
        Path(target).mkdir(parents=True, exist_ok=True)
    if made:
        with _MADE.open("a") as record:
            record.writelines(f"{target}\n" for target in made)


def _forget_mount_points() -> None:
    """With the last lab go the empty folders that were made for labs: a used one is not empty, and stays."""
    if labs():
        return
    with contextlib.suppress(FileNotFoundError):
        for target in _MADE.read_text().split():
            if target in MOUNT_POINTS:
                with contextlib.suppress(OSError):
                    Path(target).rmdir()
        _MADE.unlink()
    for root in (RUN_ROOT, DISK_ROOT):
        with contextlib.suppress(OSError):
            root.rmdir()


def _no_process_left(names: Names) -> bool:
    found = list(processes.marked(names.lab))
    # First processes first: with each of them all others of its host are gone.
    for pid, mark in sorted(found, key=lambda one: not one[1].endswith(".init")):
        processes.end(pid, mark, seconds=_SECONDS)
    return not found


def _no_cgroup_left(names: Names) -> bool:
    for top in _cgroups(names.prefix):
        for group in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                group.rmdir()
        with contextlib.suppress(OSError):
            top.rmdir()
    return not list(_cgroups(names.prefix))


def _netns(prefix: str) -> Iterator[Path]:
    return (path for path in _entries(NETNS_ROOT) if path.name.startswith(prefix))


def _cgroups(prefix: str) -> Iterator[Path]:
    """In the one hierarchy of version 2, or in each of version 1."""
    for folder in (CGROUP_ROOT, *_entries(CGROUP_ROOT)):
        if not folder.is_symlink():  # cpu -> cpu,cpuacct
            yield from (path for path in _entries(folder) if path.name.startswith(prefix))


def _mounts(names: Names) -> list[str]:
    """Mount points in our own mount namespace at or below the lab's folders."""
    folders = tuple(f"{folder}/" for folder in (names.run_dir, names.disk_dir))
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [point for point in points if f"{point}/".startswith(folders)]


def _entries(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(folder.iterdir())
    return []
