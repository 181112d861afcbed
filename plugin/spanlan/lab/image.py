"""The container image of the lab, made of this machine's own programs: no registry, no download.

BusyBox gives a hundred small tools; ``sh``, ``ip``, ``bridge``, ``ping``, ``curl``, ``iperf3`` and ``tcpdump`` are the
real ones, with the shared libraries that ldd(1) names.  The shell is not BusyBox's, because that one prefers its own
applets to programs on ``PATH``: ``ip`` would be the small one, without JSON and without ``bridge`` beside it.
Static BusyBox ``wget`` crashes in name resolution on some machines: use ``curl``.
"""

import functools
import hashlib
import io
import os
import re
import tarfile
from pathlib import Path

from spanlan.errors import Broken
from spanlan.lab import commands
from spanlan.lab.names import CACHE_ROOT
from spanlan.lab.requirements import path_of

NAME = "spanlan-lab:latest"
LABEL = "spanlan.lab.image"
PROGRAMS = ("sh", "ip", "bridge", "ping", "curl", "iperf3", "tcpdump")

_FORMAT = "2"
_FOLDERS = ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var", "www")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "www/index.html": "spanlan lab\n",
}
_LIBRARY = re.compile(r"(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)


def tarball() -> tuple[Path, str]:
    """The root file system as a tar file, and the key that names its content; made only if the cache has it not.

    Raises Broken if the programs cannot be read.
    """
    sources = _sources()
    key = _key(sources)
    target = CACHE_ROOT / f"image-{key}.tar"
    if not target.exists():
        CACHE_ROOT.mkdir(parents=True, exist_ok=True)
        draft = CACHE_ROOT / f"draft-{key}.{os.getpid()}"
        try:
            _write(draft, sources)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
        _tidy_cache(target)
    return target, key


def _tidy_cache(current: Path) -> None:
    """Remove former images, and drafts whose writer was killed."""
    for old in CACHE_ROOT.glob("image-*.tar"):
        if old != current:
            old.unlink(missing_ok=True)
    for draft in CACHE_ROOT.glob("draft-*"):
        if not Path("/proc", draft.suffix.lstrip(".")).exists():
            draft.unlink(missing_ok=True)


@functools.cache
def _sources() -> dict[str, Path]:
    """Path in the image to file on this machine."""
    files: dict[str, Path] = {}
    for program in ("busybox", *PROGRAMS):
        path = Path(path_of(program) or program)
        files[f"bin/{program}"] = path.resolve()
        listing = commands.run(["ldd", path], check=False)  # a static program makes ldd fail, and needs nothing
        for library in _LIBRARY.findall(listing.stdout):
            files[library.lstrip("/")] = Path(library).resolve()
    return files


def _key(sources: dict[str, Path]) -> str:
    digest = hashlib.sha256(_FORMAT.encode())
    for name, path in sorted(sources.items()):
        try:
            about = path.stat()
        except OSError as error:
            raise Broken(f"the lab's image needs {path}: {error}") from error
        digest.update(f"{name} {path} {about.st_size} {about.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _write(target: Path, sources: dict[str, Path]) -> None:
    applets = commands.run([sources["bin/busybox"], "--list"]).stdout.split()
    with tarfile.open(target, "w") as archive:
        for folder in sorted({*_FOLDERS, *_parents(sources)}):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            archive.addfile(entry)
        for name, text in _FILES.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))
        for name, path in sorted(sources.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = path.stat().st_size, 0o755
            with path.open("rb") as content:
                archive.addfile(entry, content)
        for applet in applets:
            if f"bin/{applet}" not in sources:
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(entry)


def _parents(sources: dict[str, Path]) -> set[str]:
    return {str(parent) for name in sources for parent in Path(name).parents} - {"."}
