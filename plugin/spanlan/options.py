"""Options, declared once.

An option set is a frozen dataclass whose fields are made with :func:`option`.  From that one declaration come the
parser, the checks, the error messages and the reference tables in the README::

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        vni: int | None = option(parse=number(1, 2**24 - 1), default=None, help="VXLAN network identifier")

Strict towards people: an unknown option is an error that names the nearest known one, and all mistakes of a request
are reported at once, so that a user fixes his command line in one go.
"""

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from spanlan.errors import Refuse

T = TypeVar("T")

_SPEC = "spanlan.option"


@dataclasses.dataclass(frozen=True, slots=True)
class Spec:
    """How one option is written, checked and explained."""

    parse: Callable[[str], Any]
    help: str
    aliases: tuple[str, ...] = ()
    default_text: str | None = None
    values: str = ""
    shown: Callable[[str], str] = str


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One line of a reference table."""

    names: tuple[str, ...]
    values: str
    default: str
    help: str


def option(  # noqa: PLR0913 - a declaration has as many columns as its table
    *,
    parse: Callable[[str], Any],
    default: Any,
    help: str,  # noqa: A002 - the word every option library uses
    aliases: Sequence[str] = (),
    default_text: str | None = None,
    values: str | None = None,
    shown: Callable[[str], str] = str,
) -> Any:
    """Declare an option as a dataclass field.

    ``parse`` turns the given text into the value and raises ValueError with a phrase that fits behind "must be" (for
    instance "a number from 1 to 255").  ``aliases`` are other spellings with the same meaning (Docker's own names).
    ``default_text`` stands in the reference table where the default is worked out at run time.  ``shown`` turns a
    given text into what an error message may repeat of it: a password must not come back in a log.
    """
    spec = Spec(
        parse=parse,
        help=help,
        aliases=tuple(aliases),
        default_text=default_text,
        values=values if values is not None else getattr(parse, "values", "text"),
        shown=shown,
    )
    return dataclasses.field(default=default, metadata={_SPEC: spec})


def parse(  # noqa: PLR0913 - the last three only change words
    table: type[T],
    given: Mapping[str, str],
    *,
    also_known: Sequence[str] = (),
    word: str = "option",
    spell: Callable[[str], str] = str,
    more: Sequence[str] = (),
) -> T:
    """Parse ``given`` (option name to text) into the option set ``table``.

    ``also_known`` names options that belong to somebody else and are skipped without an error.  ``word`` and ``spell``
    say how messages speak of an option (a setting is called ``SPANLAN_STORE`` where people write it).  ``more`` are
    mistakes that the caller has found already, so that the user reads all of them at once.
    Raises Refuse that lists every unknown option and every bad value.
    """
    known = {name: field for field in _fields(table) for name in _names(field)}
    values: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    mistakes: list[str] = list(more)
    for name, text in given.items():
        if name in also_known:
            continue
        field = known.get(name)
        if field is None:
            mistakes.append(unknown(name, [*known, *also_known], word, spell))
            continue
        spec: Spec = field.metadata[_SPEC]
        try:
            value = spec.parse(text)
        except ValueError as error:
            mistakes.append(f"{word} {spell(name)}={spec.shown(text)}: must be {error}")
            continue
        if field.name in values and values[field.name] != value:
            mistakes.append(f"{word}s {spelled[field.name]} and {spell(name)} say different things; give one of them")
        values[field.name] = value
        spelled[field.name] = spell(name)
    if mistakes:
        raise Refuse("; ".join(mistakes))
    return table(**values)


def unknown(name: str, known: Sequence[str], word: str = "option", spell: Callable[[str], str] = str) -> str:
    """The message for a name that is not in ``known``: it names the nearest one, or all.  ``spell`` as for parse."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"unknown {word} {spell(name)}: did you mean {spell(near[0])}?"
    return f"unknown {word} {spell(name)}: known are {', '.join(spell(one) for one in sorted(known))}"


def describe(table: type[Any]) -> list[Row]:
    """The reference table of an option set, in the order of its declaration."""
    rows = []
    for field in _fields(table):
        spec: Spec = field.metadata[_SPEC]
        default = spec.default_text
        if default is None:
            default = "" if field.default is None else _text(field.default)
        rows.append(Row(names=_names(field), values=spec.values, default=default, help=spec.help))
    return rows


def number(low: int, high: int) -> Callable[[str], int]:
    """A parser for whole numbers from ``low`` to ``high``, both included."""

    def parse_number(text: str) -> int:
        # int() would also take " 5", "+5", "1_0" and digits of other scripts; no number here is longer than this
        if not re.fullmatch(r"-?[0-9]{1,20}", text) or not low <= int(text) <= high:
            raise ValueError(f"a number from {low} to {high}")
        return int(text)

    parse_number.values = f"{low} to {high}"  # type: ignore[attr-defined]
    return parse_number


def choice(*allowed: str) -> Callable[[str], str]:
    """A parser for one of a few words."""

    def parse_choice(text: str) -> str:
        if text not in allowed:
            near = difflib.get_close_matches(text, allowed, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"one of {', '.join(allowed)}{hint}")
        return text

    parse_choice.values = ", ".join(allowed)  # type: ignore[attr-defined]
    return parse_choice


def switch(text: str) -> bool:
    """A parser for on and off, as Docker's own drivers read booleans."""
    word = text.lower()
    if word in {"true", "1", "yes", "on"}:
        return True
    if word in {"false", "0", "no", "off"}:
        return False
    raise ValueError("true or false")


switch.values = "true, false"  # type: ignore[attr-defined]


def name(text: str) -> str:
    """A parser for names that become part of store keys: 1 to 63 letters, digits, ``_``, ``.`` and ``-``."""
    allowed = text.replace("_", "a").replace("-", "a").replace(".", "a")
    if not (1 <= len(text) <= 63 and text.isascii() and allowed.isalnum() and text[0].isalnum()):  # noqa: PLR2004
        raise ValueError("1 to 63 letters, digits, '_', '.' or '-', starting with a letter or digit")
    return text


name.values = "name"  # type: ignore[attr-defined]


def _fields(table: type[Any]) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(table) if _SPEC in field.metadata]


def _names(field: dataclasses.Field[Any]) -> tuple[str, ...]:
    spec: Spec = field.metadata[_SPEC]
    return (field.name, *spec.aliases)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
