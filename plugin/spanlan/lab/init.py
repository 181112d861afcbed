"""The first process of a lab host, and the midwife of all others: ``python -I -S init.py boot|start SPECIFICATION``.

``boot`` makes a host out of namespaces (network, mount, UTS, IPC, PID) and stays in it as PID 1.  ``start`` starts a
program inside a host, or in the LAN's network namespace, and lets go of it: the program becomes a child of that
host's PID 1, as a service is on a real machine, so no helper process waits for it outside.

The file is run by its path, in an interpreter without site-packages, so that a host is there in milliseconds.  It must
import nothing but the standard library and must not fork helper programs: between ``unshare`` and the mounts there is
no ``mount`` or ``hostname`` to trust.

What it says on standard output is its whole protocol: ``pid N`` (N as seen by the caller), then for ``boot``
``storage DRIVER``; or ``error TEXT``.  The end of output means that all is said.

Sources: namespaces(7), pid_namespaces(7), mount(2), unix(7) on SCM_CREDENTIALS.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any, NoReturn

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x2, 0x4, 0x8
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x4_0000
MNT_DETACH = 0x2
CREDENTIALS = struct.Struct("3i")

_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> int:
    """Carry out one order; the exit status is 0 or 1, the words are on standard output."""
    order, specification = arguments[0], json.loads(arguments[1])
    try:
        if order == "boot":
            boot(specification)
        else:
            start(specification)
    except OSError as error:
        say(f"error {error}")
        return 1
    return 0


def boot(specification: dict[str, Any]) -> None:
    """Fork the first process of a host.

    Keys: ``netns``, ``hostname``, ``disk`` (a folder), ``binds`` (folder of the host to folder that is mounted there).
    """
    _enter(specification["netns"], CLONE_NEWNET)
    _call("unshare", CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID)
    child = os.fork()
    if child:
        say(f"pid {child}")
        return
    try:
        os.setsid()
        say(f"storage {furnish(specification)}")
    except OSError as error:
        say(f"error {specification['hostname']} cannot be furnished: {error}")
        os._exit(1)
    _let_go_of_the_caller(os.open("/dev/null", os.O_RDWR))
    reap_for_ever()


def furnish(specification: dict[str, Any]) -> str:
    """Give the new mount namespace what makes it a machine of its own; return the storage driver that works there."""
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    socket.sethostname(specification["hostname"])
    disk = Path(specification["disk"])
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)

    # /sys must show this network namespace, but a new sysfs comes without the control groups: carry them over.
    aside = disk / "cgroup"
    aside.mkdir(exist_ok=True)
    _mount("/sys/fs/cgroup", str(aside), None, MS_BIND | MS_REC)
    _mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _mount(str(aside), "/sys/fs/cgroup", None, MS_BIND | MS_REC)
    _call("umount2", os.fsencode(aside), MNT_DETACH)

    # A /run of its own is what lets every engine keep its default paths.
    _mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for folder in ("docker/plugins", "netns", "lock"):
        Path("/run", folder).mkdir(parents=True)
    for target, source in specification["binds"].items():
        _mount(source, target, None, MS_BIND)
    return _storage_driver(disk / "probe")


def _storage_driver(probe: Path) -> str:
    """``overlay2`` if the kernel stacks an overlay on this disk (not on another overlay, as in most containers)."""
    layers = {name: probe / name for name in ("lower", "upper", "work", "merged")}
    for folder in layers.values():
        folder.mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={layers['lower']},upperdir={layers['upper']},workdir={layers['work']}"
    try:
        _mount("overlay", str(layers["merged"]), "overlay", 0, options)
    except OSError:
        return "vfs"
    _call("umount2", os.fsencode(layers["merged"]), MNT_DETACH)
    return "overlay2"


def reap_for_ever() -> NoReturn:
    """Wait for orphans, as PID 1 must; only SIGKILL from outside ends it, and with it the whole host."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        signal.sigwait({signal.SIGCHLD})


def start(specification: dict[str, Any]) -> None:
    """Start a program and let go of it.

    Keys: ``pid`` (of the host's PID 1) or ``netns``; ``command``, ``environment``, ``log`` (a file to append to).
    """
    log = os.open(specification["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    if specification.get("pid"):
        _enter_host(specification["pid"])
    else:
        _enter(specification["netns"], CLONE_NEWNET)
    # The kernel translates the sender's PID into the receiver's PID namespace: how else could we name the grandchild?
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    child = os.fork()
    if not child:
        _become(specification, theirs, log)
    theirs.close()
    os.waitpid(child, 0)
    greeting, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(CREDENTIALS.size))
    complaint = b"".join(iter(lambda: ours.recv(4096), b""))
    if not greeting or complaint:
        say(f"error {specification['command'][0]} does not start: {complaint.decode() or 'it died at once'}")
        return
    say(f"pid {CREDENTIALS.unpack(ancillary[0][2][: CREDENTIALS.size])[0]}")


def _become(specification: dict[str, Any], caller: socket.socket, log: int) -> NoReturn:
    """In the child: fork once more, so that the host's PID 1 adopts the program, and execute it."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        caller.send(b".")
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        command = specification["command"]
        os.execvpe(command[0], command, specification["environment"])  # noqa: S606 - no shell is what we want
    except OSError as error:
        caller.send(str(error).encode())
    os._exit(127)


def say(text: str) -> None:
    """Tell the caller; he may be gone already, and that is his affair."""
    with contextlib.suppress(OSError):
        os.write(1, f"{text}\n".encode())


def _let_go_of_the_caller(nowhere: int) -> None:
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)


def _enter_host(pid: int) -> None:
    kinds = {"uts": CLONE_NEWUTS, "ipc": CLONE_NEWIPC, "net": CLONE_NEWNET, "pid": CLONE_NEWPID, "mnt": CLONE_NEWNS}
    # All are opened before the first is entered: behind the mount namespace, /proc is another.
    doors = {os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC): kind for name, kind in kinds.items()}
    for door, kind in doors.items():
        _call("setns", door, kind)


def _enter(path: str, kind: int) -> None:
    door = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    _call("setns", door, kind)
    os.close(door)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    try:
        _call("mount", texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])
    except OSError as error:
        raise OSError(error.errno, f"mount {source} on {target}: {error.strerror}") from error


def _call(name: str, *arguments: Any) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
