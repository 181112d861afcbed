"""A lab: several hosts, each with an engine and a daemon, on one LAN with one etcd, all on this machine.

    with Lab("trial", hosts=2) as lab:
        lab.hosts[0].docker("run", "--rm", IMAGE, "true")

The lab is part of the product: ``spanlan lab up`` and the tests build the very same thing.  It lives outside the
process that made it; ``Lab.find`` picks it up again, and ``Lab.down`` needs to know no more than its name.
"""

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from spanlan.errors import Broken, Gone, Refuse, Retry
from spanlan.lab import commands, image, removal, requirements
from spanlan.lab.host import Equipment, Host
from spanlan.lab.lan import Etcd, Lan
from spanlan.lab.lock import exclusive, is_held
from spanlan.lab.names import DEFAULT_NAME, MOST_HOSTS, RUN_ROOT, Names

UP_PATIENCE, DOWN_PATIENCE = 2.0, 120.0


class Lab:
    """A lab by name.  Making the object does nothing; :meth:`up` builds, :meth:`down` removes.

    ``progress`` is told, in words, what is going on.
    """

    def __init__(  # noqa: PLR0913 - one column per thing a lab may differ in
        self,
        name: str = DEFAULT_NAME,
        *,
        hosts: int = 2,
        ipv6_underlay: bool = False,
        daemon: bool = True,
        daemon_environment: Mapping[str, str] | None = None,
        engine_arguments: Sequence[str] = (),
        docker: str = "docker",
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        if not 1 <= hosts <= MOST_HOSTS:
            raise Refuse(f"a lab has 1 to {MOST_HOSTS} hosts, not {hosts}")
        self.names = Names(name)
        self.lan = Lan(self.names)
        self.etcd = Etcd(self.names, self.lan)
        self.equipment = Equipment(
            store=self.etcd.url,
            ipv6_underlay=ipv6_underlay,
            daemon=daemon,
            daemon_environment=dict(daemon_environment or {}),
            engine_arguments=tuple(engine_arguments),
            docker=docker,
        )
        self.hosts = [Host(self.names, number, self.equipment) for number in range(1, hosts + 1)]
        self._progress = progress

    @classmethod
    def find(cls, name: str = DEFAULT_NAME, *, progress: Callable[[str], None] = lambda _: None) -> Self:
        """The lab of this name that is up.

        Raises Gone if there is none, Retry while it is brought up or taken down, Broken if only its ruins are left.
        """
        names = Names(name)
        try:
            record = json.loads(names.record.read_text())
        except (OSError, ValueError) as error:
            if is_held(_lock_file(names)):
                raise Retry(f"lab {name} is being brought up or taken down right now; try again") from error
            if removal.traces(names):
                raise Broken(f"lab {name} is not whole; remove what is left with `{_down(name)}`") from error
            raise Gone(f"there is no lab {name}; `spanlan lab up --name {name}` makes it") from error
        return cls(name, progress=progress, **record)

    @property
    def name(self) -> str:
        """The lab's name."""
        return self.names.lab

    def __repr__(self) -> str:
        return f"<Lab {self.name} of {len(self.hosts)} hosts>"

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> None:
        """Build the lab and wait until every engine and daemon answers.

        Raises Refuse if it is up already or the machine lacks something, Retry if another command is at work on it,
        Broken (with the end of a log) if a part does not come up; then nothing is left behind.
        """
        requirements.check()
        with self._lock(UP_PATIENCE):
            if self.names.record.exists():
                raise Refuse(f"lab {self.name} is up already; `{_down(self.name)}` removes it")
            if removal.traces(self.names):
                raise Refuse(f"an earlier lab {self.name} was not taken down whole; first run `{_down(self.name)}`")
            try:
                self._build()
            except BaseException:
                with contextlib.suppress(Broken):  # the first error is the one to tell
                    removal.remove(self.names)
                raise

    def down(self) -> None:
        """Remove all there is of the lab, whole or in ruins; nothing to do is fine.

        Raises Broken that lists what could not be removed.
        """
        if self._lock_is_needless():
            return
        with self._lock(DOWN_PATIENCE):
            self._progress(f"removing lab {self.name}")
            removal.remove(self.names)

    def host(self, name: str) -> Host:
        """The host of this name; raises Refuse that lists the hosts there are."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise Refuse(f"lab {self.name} has no host {name}; it has {', '.join(host.name for host in self.hosts)}")

    def etcdctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``etcdctl`` (API version 3) against the lab's etcd."""
        return self.etcd.control(*arguments, check=check)

    def store_keys(self, prefix: str = "/") -> list[str]:
        """Names of all keys in the store that start with ``prefix``."""
        return self.etcdctl("get", "--prefix", "--keys-only", prefix).stdout.split()

    def clear(self) -> None:
        """Remove all containers and networks of users, on all hosts."""
        self._on_all(Host.clear)

    def _build(self) -> None:
        self._progress(f"LAN and etcd of lab {self.name}")
        self.names.run_dir.mkdir(parents=True)
        self.names.disk_dir.mkdir(parents=True)
        self.names.disk_dir.chmod(0o711)
        with exclusive(RUN_ROOT / "mount-points.lock", seconds=UP_PATIENCE):
            removal.ensure_mount_points()
        self.lan.build()
        self.etcd.start()
        self._progress(f"container image {image.NAME} from this machine's programs")
        image.tarball()
        self._on_all(self._boot)
        record = {
            "hosts": len(self.hosts),
            "ipv6_underlay": self.equipment.ipv6_underlay,
            "daemon": self.equipment.daemon,
            "daemon_environment": dict(self.equipment.daemon_environment),
            "engine_arguments": list(self.equipment.engine_arguments),
            "docker": self.equipment.docker,
        }
        self.names.record.write_text(json.dumps(record))

    def _boot(self, host: Host) -> None:
        self._progress(f"{host.name} boots")
        host.boot()
        self._progress(f"{host.name} is up: {host.address}, {host.address6}, storage driver {host.storage_driver}")

    def _on_all(self, work: Callable[[Host], None]) -> None:
        # Where processors are slow, more hosts than processors would starve each other until somebody's patience ends.
        workers = (os.cpu_count() or 1) if commands.slowness() > 1 else 8
        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(work, self.hosts):
                pass

    def _lock(self, seconds: float) -> contextlib.AbstractContextManager[None]:
        return exclusive(_lock_file(self.names), seconds=seconds)

    def _lock_is_needless(self) -> bool:
        """No trace and nobody at work: then not even the lock's file is made."""
        return not _lock_file(self.names).exists() and not removal.traces(self.names)


def _lock_file(names: Names) -> Path:
    return RUN_ROOT / f"{names.lab}.lock"


def _down(name: str) -> str:
    return "spanlan lab down" if name == DEFAULT_NAME else f"spanlan lab down --name {name}"
