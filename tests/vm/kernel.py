"""Which kernel the guest runs: Debian's for clouds, which boots twice as fast as the one for all hardware."""

import re
from dataclasses import dataclass
from pathlib import Path

UNPACKED = Path("/var/cache/spanlan-vm/kernel")
"""Where ``make system`` unpacks the kernel's package: not installed, so no boot loader ever offers it."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel image and the folder of its modules."""

    release: str
    image: Path
    modules: Path


def newest() -> Kernel:
    """The newest cloud kernel on this machine; raises FileNotFoundError that says how to get one."""
    found = [
        Kernel(image.name.removeprefix("vmlinuz-"), image, modules)
        for root in (UNPACKED, Path("/"))
        for image in root.glob("boot/vmlinuz-*-cloud-amd64")
        for modules in root.glob(f"lib/modules/{image.name.removeprefix('vmlinuz-')}")
        if (modules / "modules.dep").exists()
    ]
    if not found:
        raise FileNotFoundError("no Debian cloud kernel for the guest is here: run `make system` as root")
    return max(found, key=lambda kernel: [int(number) for number in re.findall(r"\d+", kernel.release)])
