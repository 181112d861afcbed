"""A virtual machine for one command: Debian's kernel, two processors, this machine's files underneath.

The guest's root is a read-only view of this machine with a throw-away layer on it, so the checkout, the virtual
environment and all programs are at the paths they have here, and nothing that the guest does stays.  One folder is
shared for writing; the guest has it as ``/out``:

    run       what the guest runs once it is up
    output    what that said, as it says it
    status    its exit status, there once it has ended
    console   what the guest's kernel said

It needs no rights beyond root's, and no KVM: QEMU translates (``VM_ACCEL=kvm`` uses the processor's own way where it
is there).  There is no network card; network namespaces inside are the hosts.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from vm import initramfs, kernel
from vm.view import OPTIONS, VIRTIOFSD

MODULES_TO_LOAD = ("8021q", "br_netfilter", "bridge", "dummy", "ipvlan", "macvlan", "veth", "vxlan")
"""What the tests are about.  What Docker's packet filter needs is loaded by the kernel as it is asked for."""
MEMORY = os.environ.get("VM_MEMORY", "3G")
BOOT_SECONDS = 120.0
KERNEL_WORDS = (
    *("console=ttyS0", "panic=-1", "quiet", "loglevel=4"),
    # By itself the kernel does not trust the translated processors' counters, and asks a device for the time (HPET):
    # that doubles the time spent in the kernel.
    *("clocksource=tsc", "tsc=reliable", "nowatchdog"),
    # QEMU keeps its translations by address: programs that always lie in the same place are translated once.
    "norandmaps",
    # Precautions and comforts that cost instructions, and here each instruction costs.
    *("mitigations=off", "init_on_alloc=0", "transparent_hugepage=never", "audit=0"),
)
LEASH = ("setpriv", "--pdeathsig", "KILL", "--")
"""Whatever ends the process that starts a command with this, the kernel ends the command."""
_HERE = Path(__file__).parent
_CHECKOUT = _HERE.parent.parent
_TOLD_LINES = 60
PREFIX = "spanlan-vm-"
"""Of the folder of each guest; the owner's PID follows."""


class GuestError(Exception):
    """The guest did not do what a machine does; the text ends with what its console showed."""


class Guest:
    """One virtual machine, from power-on to power-off; a context in which it lives."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        _remove_ruins()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        self.out = self.folder / "out"
        self.out.mkdir()
        self._command = command
        self._environment = environment
        self.processes: list[subprocess.Popen[bytes]] = []
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self.power_on()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    @property
    def running(self) -> bool:
        """Whether the machine is on."""
        return self.processes[-1].poll() is None

    @property
    def seconds(self) -> float:
        """Since it was switched on."""
        return time.monotonic() - self._began

    @property
    def up(self) -> bool:
        """Whether the command was started."""
        return (self.out / "up").exists()

    def status(self) -> int | None:
        """The command's exit status; None while it runs, or if it never came to an end."""
        try:
            return int((self.out / "status").read_text())
        except FileNotFoundError:
            return None

    def stages(self) -> dict[str, str]:
        """How far it came, in words, by name; times are of the guest's own clock, which starts with its kernel."""
        words = {"kernel-up": "has its root", "up": "is up"}
        reached = {name: self._read(name).strip() for name in words}
        return {name: f"{words[name]} after {seconds} s" for name, seconds in reached.items() if seconds}

    def wait(self, *, seconds: float) -> int:
        """Wait for the power-off and return the command's exit status.

        Raises GuestError if it is still on after ``seconds`` or went off without a status.
        """
        ends_at = time.monotonic() + seconds
        while self.running:
            if time.monotonic() > ends_at:
                raise self.error(f"the guest is still running after {seconds:g} s")
            if not self.up and self.seconds > BOOT_SECONDS:
                raise self.error(f"the guest did not boot within {BOOT_SECONDS:g} s")
            time.sleep(0.1)
        status = self.status()
        if status is None:
            raise self.error("the guest went off without an exit status")
        return status

    def error(self, what: str) -> GuestError:
        """An error that carries what there is to read about it."""
        lines = [f"{what} (it {', '.join(self.stages().values()) or 'has not mounted its root'})"]
        for log in ("console", "output", "qemu.log", "view.log", "out.log"):
            text = self._read(log)
            if text:
                lines += [f"---- {log}, its end:", *text.splitlines()[-_TOLD_LINES:]]
        return GuestError("\n".join(lines))

    def _read(self, name: str) -> str:
        for folder in (self.out, self.folder):
            if (folder / name).exists():
                return (folder / name).read_text(errors="replace")
        return ""

    def remove(self) -> None:
        """Switch off, if it is on, and remove the folder."""
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- power

    def give(self, name: str, text: str) -> None:
        """Lay a file into the shared folder."""
        (self.out / name).write_text(text)

    def power_on(self) -> None:
        """Switch on, and return when the firmware runs; raises GuestError if it does not come to that."""
        try:
            self._power_on()
        except BaseException:
            self.remove()
            raise

    def _power_on(self) -> None:
        self._began = time.monotonic()
        chosen = kernel.newest()
        root, disk = self.folder / "root", self.folder / "initramfs"
        root.mkdir()
        self.give("modules", str(chosen.modules))
        self.give("modules-to-load", "\n".join((*MODULES_TO_LOAD, "")))
        self.give("run", "\n".join(("#!/bin/sh", *self._script(), "")))
        (self.out / "run").chmod(0o755)
        initramfs.write(disk, chosen)

        machine, results = self.folder / "machine.sock", self.folder / "out.sock"
        view = [sys.executable, "-I", "-S", _HERE / "view.py", machine, root, *mounts(self._visible(chosen))]
        self._start("view.log", ["unshare", "--mount", "--propagation", "private", "--", *view])
        self._start("out.log", [VIRTIOFSD, f"--socket-path={results}", "-o", f"source={self.out}", *OPTIONS])
        while not (machine.exists() and results.exists()):
            if any(process.poll() is not None for process in self.processes) or self.seconds > BOOT_SECONDS:
                raise self.error("the guest's files cannot be served")
            time.sleep(0.01)
        words = (*KERNEL_WORDS, f"spanlan.init={_HERE / 'guest-init'}")
        self._start("qemu.log", [*self._qemu(chosen.image, disk), "-append", " ".join(words)])

    def _script(self) -> list[str]:
        settings = [f"{name}={value}" for name, value in self._environment.items()]
        return [shlex.join(["cd", str(_CHECKOUT)]), shlex.join(["exec", "env", *settings, *self._command])]

    @staticmethod
    def _visible(chosen: kernel.Kernel) -> list[Path]:
        """What the guest must see, on whatever file system it lies."""
        python = (sys.prefix, sys.base_prefix, sys.executable)
        return [Path("/usr"), Path("/etc"), Path("/var/cache"), _CHECKOUT, chosen.modules, *map(Path, python)]

    def _qemu(self, image: Path, disk: Path) -> list[str | Path]:
        def share(tag: str, socket: Path) -> list[str]:
            device = f"vhost-user-fs-pci,chardev={tag},tag={tag}"
            return ["-chardev", f"socket,id={tag},path={socket}", "-device", device]

        accelerator = {"tcg": "tcg,thread=multi"}.get(os.environ.get("VM_ACCEL", "tcg"), os.environ.get("VM_ACCEL", ""))
        return [
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none"),
            *("-machine", "q35,memory-backend=memory,hpet=off", "-accel", accelerator),
            *("-cpu", "max,+invtsc", "-smp", "2", "-m", MEMORY),
            # The file servers work in the guest's memory, so it must be one that can be shared.
            *("-object", f"memory-backend-memfd,id=memory,share=on,size={MEMORY}"),
            *("-object", "rng-random,id=random,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=random"),
            *share("machine", self.folder / "machine.sock"),
            *share("out", self.folder / "out.sock"),
            *("-serial", f"file:{self.out / 'console'}", "-kernel", image, "-initrd", disk),
        ]

    def _start(self, log: str, command: Sequence[str | Path]) -> None:
        with (self.folder / log).open("wb") as said:
            self.processes.append(
                subprocess.Popen([*LEASH, *command], stdin=subprocess.DEVNULL, stdout=said, stderr=said)
            )


def _remove_ruins() -> None:
    """Folders of guests whose owner was killed; the guests went with it."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdecimal() and not Path("/proc", owner).exists():
            shutil.rmtree(folder, ignore_errors=True)


def mounts(paths: Iterable[Path]) -> list[str]:
    """The mounts that the paths lie on, outer ones first; the root is always among them."""
    found = {"/"}
    for path in paths:
        place = path.resolve()
        while not place.is_mount():
            place = place.parent
        found.add(str(place))
    return sorted(found)
