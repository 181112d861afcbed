"""The spanlan command.

Commands are named here and imported when they are called, so that ``spanlan --help`` is quick and a command that needs
Docker's or etcd's client does not make the others wait for it.  This module turns errors into exit codes; what a
command does stands in its own module.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

import click

from spanlan import __version__
from spanlan.errors import Gone, Refuse, Retry, SpanlanError

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMANDS: Final["Mapping[str, tuple[str, str]]"] = {
    "serve": ("spanlan.cli.serve:serve", "Run the daemon that serves dockerd."),
    "lab": ("spanlan.cli.lab:lab", "Several Docker hosts on this machine, to try spanlan with."),
    "docs": ("spanlan.cli.docs:docs", "Print the reference tables, or write them into a file."),
}
"""Command name to where it is and what it does in one line."""

# sysexits.h: a caller can tell "try again" (75) from "a person must look" (70); 2 is what click gives a usage error.
_EXIT_CODES: Final[tuple[tuple[type[SpanlanError], int], ...]] = ((Refuse, 2), (Retry, 75), (Gone, 1))
_EXIT_BROKEN: Final = 70


def exit_code(error: SpanlanError) -> int:
    """The exit code for an error: 2 change the request, 75 try again, 1 not there, 70 a person must look."""
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), _EXIT_BROKEN)


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All commands, in the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command; None if there is no such."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands for ``--help`` without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; its errors become a message and an exit code."""
        try:
            return super().invoke(ctx)
        except SpanlanError as error:
            click.echo(f"spanlan: {error}", err=True)
            ctx.exit(exit_code(error))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="spanlan", message="%(prog)s %(version)s")
def main() -> None:
    """Spanlan: Docker networks that span hosts, on plain engines."""
