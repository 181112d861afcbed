"""Run one command in a guest, to look around: ``PYTHONPATH=tests:plugin python -m vm COMMAND…`` in the checkout."""

import os
import sys

from vm.guest import Guest, GuestError


def main() -> int:
    environment = {"PYTHONPATH": "plugin:tests", "VM": "inside", "PATH": os.environ["PATH"]}
    try:
        with Guest(sys.argv[1:], environment) as guest:
            status = guest.wait(seconds=float(os.environ.get("VM_SECONDS", "600")))
            sys.stdout.write((guest.out / "output").read_text())
            sys.stderr.write(f"{', '.join(guest.stages().values())}, off after {guest.seconds:.1f} s\n")
            return status
    except GuestError as error:
        sys.stderr.write(f"{error}\n")
        return 125


if __name__ == "__main__":
    sys.exit(main())
