"""The guest's initial RAM disk: busybox, the few modules that its root needs, and ``initramfs-init``.

Made anew for each boot, in a few milliseconds, without any tool: the archive format is cpio's "newc"
(Documentation/driver-api/early-userspace/buffer-format.rst of the kernel).
"""

import lzma
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from vm.kernel import Kernel

MODULES = ("virtio_pci", "virtiofs", "overlay", "virtio_rng")
"""What it takes to have a root, and randomness; all else is loaded from that root."""
_FOLDERS = ("bin", "dev", "lower", "modules", "out", "proc", "root", "upper")
_INIT = Path(__file__).with_name("initramfs-init")


def write(target: Path, kernel: Kernel) -> None:
    """Write the RAM disk for a kernel.  Raises FileNotFoundError if busybox is not installed."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise FileNotFoundError("busybox is not installed (Debian: busybox-static)")
    number = 0
    with target.open("wb") as archive:
        for name, mode, content in _entries(kernel, Path(busybox)):
            number += 1
            archive.write(_record(number, name, mode, content))
        archive.write(_record(0, "TRAILER!!!", 0, b""))


def _entries(kernel: Kernel, busybox: Path) -> Iterator[tuple[str, int, bytes]]:
    for folder in _FOLDERS:
        yield folder, stat.S_IFDIR | 0o755, b""
    yield "init", stat.S_IFREG | 0o755, _INIT.read_bytes()
    yield "bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes()
    for place, module in enumerate(load_order(kernel, MODULES)):
        yield f"modules/{place:02d}-{module_name(module)}", stat.S_IFREG | 0o644, _unpacked(module)


def load_order(kernel: Kernel, wanted: tuple[str, ...]) -> list[Path]:
    """The module files to load, dependencies first; a module that is part of the kernel itself needs none."""
    files: dict[str, list[str]] = {}
    for line in (kernel.modules / "modules.dep").read_text().splitlines():
        file, _, dependencies = line.partition(":")
        # depmod(8) lists a module's dependencies so that the last one is to be loaded first.
        files[module_name(Path(file))] = [*reversed(dependencies.split()), file]
    built_in = {module_name(Path(line)) for line in (kernel.modules / "modules.builtin").read_text().splitlines()}
    missing = [name for name in wanted if name not in files and name not in built_in]
    if missing:
        raise FileNotFoundError(f"kernel {kernel.release} has no {', '.join(missing)}")
    order = [file for name in wanted for file in files.get(name, [])]
    return [kernel.modules / file for file in dict.fromkeys(order)]


def module_name(file: Path) -> str:
    """As lsmod(8) shows it."""
    return file.name.partition(".ko")[0].replace("-", "_")


def _unpacked(module: Path) -> bytes:
    """Debian compresses modules since version 13, and busybox loads plain ones only."""
    content = module.read_bytes()
    return lzma.decompress(content) if module.suffix == ".xz" else content


def _record(number: int, name: str, mode: int, content: bytes) -> bytes:
    path = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return _padded(head) + _padded(content)


def _padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % 4)
