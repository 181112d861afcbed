"""Who sits on a link: macvlan and ipvlan children and VLAN links, here and in containers.

A child that was handed over to a container is in a network namespace of its own and in no listing of ours, yet it
counts: the kernel keeps one ipvlan mode for all children of a parent, and removes them all with the parent.  It can be
asked, though.  Whenever a link moves from our namespace to another one, that one gets a number here (rtnetlink(7),
RTM_GETNSID), and links of a numbered namespace may be listed from here (IFLA_TARGET_NETNSID, since Linux 4.20).
What stays unseen are links that were made in another namespace from the start, or that moved on to a third one.

A namespace costs a few tenths of a millisecond, whatever is in it (pyroute2 would take ten times that).
It must never write.
"""

import errno
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from spanlan.errors import Retry
from spanlan.kernel import netlink
from spanlan.kernel.found import MARK
from spanlan.kernel.kinds import IPVLAN_FLAGS, IPVLAN_MODES, MACVLAN_MODES
from spanlan.kernel.messages import (
    ATTRIBUTE,
    HEADER,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    RTM_NEWLINK,
)

CHILD_KINDS: Final = ("macvlan", "macvtap", "ipvlan", "ipvtap")

_RTM_GETLINK: Final = 18
_RTM_GETNSID: Final = 90
_NETNSA_NSID: Final = 1
_NETNSA_FD: Final = 3
_IFLA_IFNAME: Final = 3
_IFLA_LINK: Final = 5
_IFLA_LINKINFO: Final = 18
_IFLA_IFALIAS: Final = 20
_IFLA_EXT_MASK: Final = 29
_IFLA_LINK_NETNSID: Final = 37
_IFLA_TARGET_NETNSID: Final = 46
_IFLA_INFO_KIND: Final = 1
_IFLA_INFO_DATA: Final = 2
_MODE: Final = 1  # IFLA_MACVLAN_MODE, IFLA_IPVLAN_MODE
_IPVLAN_FLAGS: Final = 2  # IFLA_IPVLAN_FLAGS
_SKIP_STATISTICS: Final = 1 << 3  # RTEXT_FILTER_SKIP_STATS
_NESTED: Final = 0x8000
_TYPE: Final = 0x3FFF  # the two upper bits of an attribute's type are flags

_LINK: Final = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_NUMBER: Final = struct.Struct("=i")
_SHORT: Final = struct.Struct("=H")
_EMPTY: Final = bytes(4)  # rtgenmsg, which has nothing to say
_READ: Final = 1 << 17
_ATTEMPTS: Final = 8


@dataclass(frozen=True, slots=True)
class UpperLink:
    """A link that sits on another one.

    ``mode``: of a macvlan or ipvlan link, else empty; ``flag``: of an ipvlan link.  ``alias``: it stays with the link
    wherever that goes.  ``namespace``: the number that its namespace has in ours, None if it is in ours.
    """

    name: str
    index: int
    kind: str
    mode: str
    flag: str
    alias: str
    namespace: int | None

    @property
    def ours(self) -> bool:
        """Whether spanlan made it."""
        return self.alias.startswith(MARK)

    def __str__(self) -> str:
        words = " ".join(word for word in (self.kind, self.mode, self.flag) if word)
        where = "" if self.namespace is None else " in a container"
        return f"{self.name} ({words}{where})"


class _Answer(NamedTuple):
    """The fixed part of a message, and its attributes by type."""

    header: bytes
    attributes: dict[int, bytes]


def uppers_of(index: int, kinds: Iterable[str] = (*CHILD_KINDS, "vlan")) -> Iterator[UpperLink]:
    """The links of these kinds that sit on the link with this index, those of our own namespace first.

    Comes one by one, so that whoever needs only one does not pay for all.
    Raises Retry if the kernel does not answer, Broken if it refuses.
    """
    wanted = tuple(kinds)
    with _Asker() as asker:
        for kind in wanted:  # one by one, so that the kernel leaves out the host's thousand veth links
            yield from asker.uppers(index, (kind,), None)
        for namespace in asker.namespaces():  # all at once, since a container has few links, but there are many
            yield from asker.uppers(index, wanted, namespace)


class _Asker:
    """A socket and its questions."""

    def __init__(self) -> None:
        self._socket = netlink.open_socket()
        self._myself: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def namespaces(self) -> list[int]:
        """The numbers of all namespaces that have one here, the newest first; ours, if it has one, is left out."""
        numbers = {_number(answer.attributes, _NETNSA_NSID) for answer in self._ask(_RTM_GETNSID, _EMPTY, dump=True)}
        myself = self._own_number()
        return sorted((number for number in numbers if number is not None and number not in {myself, -1}), reverse=True)

    def uppers(self, index: int, kinds: tuple[str, ...], namespace: int | None) -> Iterator[UpperLink]:
        """The links of these kinds, in one namespace, that sit on the link ``index`` of ours."""
        body = _LINK.pack(0, 0, 0, 0, 0) + _attribute(_IFLA_EXT_MASK, _NUMBER.pack(_SKIP_STATISTICS))
        if len(kinds) == 1:
            body += _attribute(_IFLA_LINKINFO | _NESTED, _attribute(_IFLA_INFO_KIND, kinds[0].encode() + b"\0"))
        if namespace is not None:
            body += _attribute(_IFLA_TARGET_NETNSID, _NUMBER.pack(namespace))
        for answer in self._ask(_RTM_GETLINK, body, dump=True):
            if _number(answer.attributes, _IFLA_LINK) != index:
                continue
            # Where the link beneath is, as a number in our namespace; absent if it is in the same one as this link.
            beneath = _number(answer.attributes, _IFLA_LINK_NETNSID)
            here = beneath is None if namespace is None else beneath is not None and beneath == self._own_number()
            found = _read(answer, namespace) if here else None
            if found is not None and found.kind in kinds:  # a kernel that does not know the kind lists all
                yield found

    def _own_number(self) -> int | None:
        """The number of our namespace in itself.  It gets one when the kernel first has to speak of it: at our dump."""
        if self._myself is None or self._myself < 0:
            handle = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                (answer,) = self._ask(_RTM_GETNSID, _EMPTY + _attribute(_NETNSA_FD, _NUMBER.pack(handle)), dump=False)
            finally:
                os.close(handle)
            self._myself = _number(answer.attributes, _NETNSA_NSID)
        return self._myself

    def _ask(self, kind: int, body: bytes, *, dump: bool) -> list[_Answer]:
        tried = "look for the links that sit on another one"
        flags = NLM_F_REQUEST | (NLM_F_DUMP if dump else 0)
        request = HEADER.pack(HEADER.size + len(body), kind, flags, 1, 0) + body
        for _ in range(_ATTEMPTS):
            try:
                self._socket.send(request)
                answers = self._answers(tried, dump=dump)
            except TimeoutError as error:
                raise Retry(f"{tried}: the kernel did not answer") from error
            except OSError as error:
                raise netlink.explain(error.errno or 0, str(error), tried) from error
            if answers is not None:
                return answers
        raise Retry(f"{tried}: they changed faster than they could be read")

    def _answers(self, tried: str, *, dump: bool) -> list[_Answer] | None:
        """All answers to a question, or None if a dump was disturbed in the middle."""
        answers: list[_Answer] = []
        whole = True
        while True:
            buffer = self._socket.recv(_READ)
            at = 0
            while at < len(buffer):
                length, kind, flags, _, _ = HEADER.unpack_from(buffer, at)
                whole = whole and not flags & NLM_F_DUMP_INTR
                if kind in {NLMSG_DONE, NLMSG_ERROR}:
                    number = -_NUMBER.unpack_from(buffer, at + HEADER.size)[0]
                    if number and number != errno.EINVAL:  # EINVAL: that namespace has just ended
                        raise netlink.explain(number, "", tried)
                    return answers if whole else None
                skip = _LINK.size if kind == RTM_NEWLINK else len(_EMPTY)
                start = at + HEADER.size
                answers.append(_Answer(buffer[start : start + skip], _attributes(buffer, start + skip, at + length)))
                at += (length + 3) & ~3
            if not dump:
                return answers


def _read(answer: _Answer, namespace: int | None) -> UpperLink | None:
    info = answer.attributes.get(_IFLA_LINKINFO, b"")
    details = _attributes(info, 0, len(info))
    data = details.get(_IFLA_INFO_DATA, b"")
    options = _attributes(data, 0, len(data))
    kind = _text(details.get(_IFLA_INFO_KIND, b""))
    mode = flag = ""
    if kind.startswith("macv") and _MODE in options:
        mode = MACVLAN_MODES.get(_NUMBER.unpack_from(options[_MODE])[0], "")
    elif kind.startswith("ipv"):
        mode = IPVLAN_MODES.get(_SHORT.unpack_from(options.get(_MODE, bytes(2)))[0], "")
        flag = IPVLAN_FLAGS.get(_SHORT.unpack_from(options.get(_IPVLAN_FLAGS, bytes(2)))[0], "")
    return UpperLink(
        name=_text(answer.attributes.get(_IFLA_IFNAME, b"")),
        index=_LINK.unpack(answer.header)[2],
        kind=kind,
        mode=mode,
        flag=flag,
        alias=_text(answer.attributes.get(_IFLA_IFALIAS, b"")),
        namespace=namespace,
    )


def _attribute(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(buffer: bytes, at: int, end: int) -> dict[int, bytes]:
    found = {}
    while at + ATTRIBUTE.size <= end:
        size, kind = ATTRIBUTE.unpack_from(buffer, at)
        found[kind & _TYPE] = buffer[at + ATTRIBUTE.size : at + size]
        at += (size + 3) & ~3
    return found


def _number(attributes: dict[int, bytes], kind: int) -> int | None:
    value = attributes.get(kind)
    return None if value is None else int(_NUMBER.unpack_from(value)[0])


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
