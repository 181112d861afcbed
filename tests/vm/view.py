"""Shows this machine's files to the guest, read-only: ``python -I -S view.py SOCKET FOLDER MOUNT...``.

Runs in a mount namespace of its own (unshare(1)), binds each of the MOUNTs read-only under FOLDER and becomes
virtiofsd, which serves FOLDER on SOCKET until the guest ends.  Whatever the guest's root does, it cannot write here.
"""

import os
import subprocess
import sys
from pathlib import Path

VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
# Namespaces as a sandbox fail where the shared folder is the root, hence chroot.  The guest keeps what it has read: a
# file that is changed here while it runs may look old or new to it.
OPTIONS = ("-o", "cache=always", "-o", "sandbox=chroot", "--thread-pool-size=1")


def main(socket: str, folder: str, *mounts: str) -> None:
    for mount in mounts:
        place = Path(folder, mount.lstrip("/"))
        subprocess.run(["mount", "--bind", mount, place], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
    os.execv(VIRTIOFSD, [VIRTIOFSD, f"--socket-path={socket}", "-o", f"source={folder}", *OPTIONS])  # noqa: S606 - no shell is what we want


if __name__ == "__main__":
    main(*sys.argv[1:])
