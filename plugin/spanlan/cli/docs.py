"""``spanlan docs``: the reference tables, printed from the code that enforces them.

Between ``<!-- begin: NAME -->`` and ``<!-- end -->`` a Markdown file holds the table NAME; ``spanlan docs --write``
writes it afresh, and a test fails when a file and the code disagree.  ``config.json`` of the managed
plugin gets its list of environment variables the same way.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from spanlan import settings
from spanlan.control.ipam import IpamOptions
from spanlan.drivers import DRIVERS
from spanlan.errors import Refuse
from spanlan.options import describe

_BLOCK = re.compile(r"(?P<begin><!-- begin: (?P<name>[\w ]+) -->\n)(?P<body>.*?)(?P<end><!-- end -->)", re.DOTALL)

# Inside a managed plugin these name places in its own root file system, which config.json itself mounts.
_FIXED_IN_PLUGIN = {"socket", "state_dir"}


def tables() -> Mapping[str, Callable[[], str]]:
    """Every table that a file may hold, by its name."""
    known: dict[str, Callable[[], str]] = {"settings": _settings, "options ipam": partial(_options, IpamOptions)}
    for mode, driver in DRIVERS.items():
        known[f"options {mode}"] = partial(_options, driver.options)
    return known


def refreshed(text: str) -> str:
    """``text`` with all its tables as the code has them.  Raises Refuse for a table that nobody knows."""
    known = tables()

    def write(found: re.Match[str]) -> str:
        make = known.get(found["name"])
        if make is None:
            raise Refuse(f"unknown table {found['name']}: known are {', '.join(known)}")
        return f"{found['begin']}{make()}{found['end']}"

    return _BLOCK.sub(write, text)


def blocks(text: str) -> list[str]:
    """Names of the tables that ``text`` holds."""
    return [found["name"] for found in _BLOCK.finditer(text)]


def plugin_environment() -> list[dict[str, Any]]:
    """The ``env`` list of the managed plugin's ``config.json`` (protocol section 1.7).

    Defaults that are worked out at run time are an empty value: the daemon takes that for "not set".
    """
    rows = []
    for row, plain in zip(settings.table(), _plain_defaults(), strict=True):
        field, variable, _ = row.names
        settable = [] if field in _FIXED_IN_PLUGIN else ["value"]
        rows.append({"name": variable, "description": row.help, "value": plain, "settable": settable})
    return rows


def _plain_defaults() -> Sequence[str]:
    fresh = settings.Settings()
    return ["" if (value := getattr(fresh, row.names[0])) is None else str(value) for row in describe(type(fresh))]


@click.command()
@click.option(
    "--write",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, writable=True, path_type=Path),
    help="Write the tables into this Markdown file, or the env list into config.json.",
)
def docs(files: Sequence[Path]) -> None:
    """Print the reference tables, or write them into a file."""
    for file in files:
        text = file.read_text(encoding="utf-8")
        file.write_text(_with_environment(text) if file.suffix == ".json" else refreshed(text), encoding="utf-8")
    if not files:
        click.echo("\n".join(f"{name}\n\n{make()}" for name, make in tables().items()), nl=False)


def _with_environment(text: str) -> str:
    try:
        config = json.loads(text)
    except ValueError as error:
        raise Refuse(f"this is not a config.json: {error}") from error
    config["env"] = plugin_environment()
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def _settings() -> str:
    rows = [(f"`{variable}`", f"`{flag}`", row) for row in settings.table() for _, variable, flag in [row.names]]
    return _markdown(
        ("variable", "flag", "values", "default", "meaning"),
        [(variable, flag, row.values, _code(row.default), row.help) for variable, flag, row in rows],
    )


def _options(table: type[Any]) -> str:
    return _markdown(
        ("option", "values", "default", "meaning"),
        [
            ("<br>".join(f"`{name}`" for name in row.names), row.values, _code(row.default), row.help)
            for row in describe(table)
        ],
    )


def _code(default: str) -> str:
    """A default that can be typed stands as code; one that is described stands as words."""
    return f"`{default}`" if default and " " not in default else default


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
