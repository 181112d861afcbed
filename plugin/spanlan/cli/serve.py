"""``spanlan serve``: settings from the environment and the command line, then the daemon."""

import os
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from spanlan import settings
from spanlan.cli.logs import configure_logging

Decorated = Callable[..., Any]


def _flags(command: Decorated) -> Decorated:
    """Add a flag for every setting, as the table declares it."""
    for row in reversed(settings.table()):
        field, variable, flag = row.names
        about = f"{row.help} [values: {row.values}; default: {row.default or 'none'}]"
        command = click.option(flag, field, envvar=variable, show_envvar=True, metavar="TEXT", help=about)(command)
    return command


@click.command()
@_flags
@click.pass_context
def serve(context: click.Context, /, **given: str | None) -> None:
    """Run the daemon that serves dockerd.

    It runs in the foreground and logs to standard error; SIGTERM ends it. Containers keep their network meanwhile.
    Every setting is an environment variable or a flag; the flag wins.
    """
    flags = {
        field: text
        for field, text in given.items()
        if text is not None and context.get_parameter_source(field) is ParameterSource.COMMANDLINE
    }
    chosen = settings.read(os.environ, flags)
    configure_logging(chosen.log)

    from spanlan.daemon import run  # noqa: PLC0415 - a mistake in the settings is told before anything heavy is loaded

    run(chosen)
