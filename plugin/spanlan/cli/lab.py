"""``spanlan lab``: several Docker hosts on this machine, to try spanlan out or to test it.

The commands only ask and tell; what a lab is and how it is built is in ``spanlan.lab``.  Progress goes to standard
error, answers to standard output.
"""

import os
import signal
import time
from types import FrameType
from typing import Any, NoReturn

import click

from spanlan.errors import Broken, Gone, Refuse, Retry
from spanlan.lab import IMAGE, Lab, removal
from spanlan.lab import demo as demonstration
from spanlan.lab.commands import environment_of_caller
from spanlan.lab.names import DEFAULT_NAME, MOST_HOSTS
from spanlan.lab.requirements import check_root, path_of

_PASS_ON: dict[str, Any] = {"ignore_unknown_options": True, "allow_interspersed_args": False}
_COLUMNS = ("{:<8}", "{:<13}", "{:<10}", "{:<8}", "{:<8}", "{:<10}", "{}")

name_option = click.option(
    "--name", default=DEFAULT_NAME, show_default=True, help="Which lab; labs with different names do not meet."
)


@click.group()
def lab() -> None:
    """Several Docker hosts on this machine, each with its own engine and its own spanlan daemon.

    A host is a set of kernel namespaces, not a virtual machine: two of them are up in a few seconds and need about
    100 MB of memory each.  They share a LAN (10.99.0.0/24 and fd99::/64, host N has .N) with one etcd server on it
    (10.99.0.250).  Nothing of it touches this machine's own Docker, network or packet filter.

    \b
    spanlan lab up
    spanlan lab docker host1 -- network create -d spanlan --ipam-driver spanlan \\
        --subnet 10.42.0.0/16 -o segment=blue blue
    spanlan lab exec host2 -- ip addr
    spanlan lab down
    """  # noqa: D301 - click reads the \b


@lab.command()
@click.option(
    "--hosts", type=click.IntRange(1, MOST_HOSTS), default=2, show_default=True, metavar="N", help="How many hosts."
)
@click.option("--ipv6-underlay", is_flag=True, help="Let the tunnels between the hosts run over IPv6.")
@click.option("--no-daemon", is_flag=True, help="Start no spanlan daemons, only engines and etcd.")
@click.option("--docker", default="docker", show_default=True, help="Docker command line client to use.")
@name_option
def up(hosts: int, ipv6_underlay: bool, no_daemon: bool, docker: str, name: str) -> None:  # noqa: FBT001 - click's way
    """Bring up a lab (as root) and wait until all of it answers.

    If something fails, what was made is removed again; after a crash of this command, `spanlan lab down` does it.
    """
    standing = _standing(name)
    if standing is None:
        signal.signal(signal.SIGTERM, _leave)
        started = time.monotonic()
        standing = Lab(
            name, hosts=hosts, ipv6_underlay=ipv6_underlay, daemon=not no_daemon, docker=docker, progress=_tell
        )
        standing.up()
        click.echo(f"lab {name} is up after {time.monotonic() - started:.1f} s")
    elif (len(standing.hosts), standing.equipment.ipv6_underlay, standing.equipment.daemon) != (
        (hosts, ipv6_underlay, not no_daemon)
    ):
        raise Refuse(f"lab {name} is up already, in another form; take it down first: spanlan lab down{_named(name)}")
    else:
        click.echo(f"lab {name} is up already")
    first = standing.hosts[0].name
    click.echo("What to do with it:")
    click.echo(f"  spanlan lab docker{_named(name)} {first} -- run --rm -it {IMAGE} sh")
    click.echo(f"  spanlan lab exec{_named(name)} {first}       (a shell on the host)")
    click.echo(f"  spanlan lab status{_named(name)}")
    click.echo(f"  spanlan lab down{_named(name)}")


@lab.command()
@name_option
@click.option("--all", "everything", is_flag=True, help="Take down every lab of this machine.")
def down(name: str, everything: bool) -> None:  # noqa: FBT001 - click's way
    """Remove a lab and all that belongs to it.

    Works from what the kernel shows (namespaces, control groups, marked processes), so it also removes what is left
    of a lab whose `up` was killed or whose files are lost.  Containers and images of the lab are gone afterwards.
    """
    check_root()
    there = removal.labs()
    chosen = there if everything else [name]
    if not everything and name not in there:
        others = f"; there is: {', '.join(there)}" if there else ""
        click.echo(f"there is no lab {name}{others}")
        return
    for one in chosen:
        Lab(one, progress=_tell).down()
        click.echo(f"lab {one} is gone")


@lab.command()
@click.option("--name", default=None, help="Which lab; all of them if left out.")
def status(name: str | None) -> None:
    """Show the labs of this machine: their hosts, and whether engines, daemons and etcd answer."""
    check_root()
    chosen = removal.labs() if name is None else [name]
    if not chosen:
        click.echo("no lab is up; `spanlan lab up` makes one")
    for one in chosen:
        try:
            _show(Lab.find(one))
        except (Broken, Gone, Retry) as error:
            if name is not None:
                raise
            click.echo(str(error))


@lab.command("exec", context_settings=_PASS_ON)
@name_option
@click.argument("host")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def execute(name: str, host: str, command: tuple[str, ...]) -> None:
    """Run COMMAND on HOST, or a shell if none is given.  The exit status is the command's.

    \b
    spanlan lab exec host1 -- bridge fdb show
    """  # noqa: D301 - click reads the \b
    machine = _find(name).host(host)
    shell = "bash" if path_of("bash") else "sh"
    _become(machine.inside(_after_dashes(command) or [shell]), machine.environment())


@lab.command(context_settings=_PASS_ON)
@name_option
@click.argument("host")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def docker(name: str, host: str, arguments: tuple[str, ...]) -> None:
    """Run the docker command with ARGUMENTS against the engine of HOST.

    \b
    spanlan lab docker host1 -- run --rm -it spanlan-lab sh
    """  # noqa: D301 - click reads the \b
    standing = _find(name)
    machine = standing.host(host)
    _become([standing.equipment.docker, *_after_dashes(arguments)], machine.docker_environment())


@lab.command()
@name_option
@click.option("--lines", type=click.IntRange(1), default=50, show_default=True, help="How many of the last lines.")
@click.option("--follow", "-f", is_flag=True, help="Go on as the log grows.")
@click.argument("host")
@click.argument("which", type=click.Choice(["daemon", "dockerd"]), default="daemon")
def logs(name: str, lines: int, follow: bool, host: str, which: str) -> None:  # noqa: FBT001 - click's way
    """Show the log of HOST's daemon or dockerd; for the log of etcd, HOST is `etcd`."""
    standing = _find(name)
    if host == "etcd":
        log = standing.etcd.service.log
    else:
        machine = standing.host(host)
        log = (machine.daemon if which == "daemon" else machine.engine).log
    if not log.exists():
        raise Gone(f"{log} does not exist: {which} of {host} was never started")
    _become(["tail", "-n", str(lines), *(["-F"] if follow else []), str(log)], environment_of_caller())


@lab.command()
@click.option("--hosts", type=click.IntRange(2, MOST_HOSTS), default=2, show_default=True, help="How many hosts.")
@click.option("--keep", is_flag=True, help="Leave the lab up at the end, and say how to enter it.")
@click.option("--name", default="demo", show_default=True, help="Name of the lab that the demo makes.")
def demo(hosts: int, keep: bool, name: str) -> None:  # noqa: FBT001 - click's way
    """Show what spanlan does: containers on several engines on one network (as root).

    Brings up a lab, makes a network on each engine, starts a container on each, pings and transfers both ways, and
    prints what etcd knows and what the kernels hold.  Nothing is left behind, unless --keep is given.
    """
    signal.signal(signal.SIGTERM, _leave)
    check_root()
    started = time.monotonic()
    click.echo(f"0. A lab of {hosts} hosts, each with a Docker engine and a spanlan daemon, and one etcd")
    trial = Lab(name, hosts=hosts, progress=lambda text: click.echo(f"   {text}"))
    trial.up()
    try:
        demonstration.show(trial, click.echo)
        if not keep:
            demonstration.tidy(trial, click.echo)
    finally:
        if not keep:
            trial.down()
    click.echo(f"\nDone in {time.monotonic() - started:.0f} s.")
    if keep:
        click.echo(f"The lab stays up. Enter it with\n   spanlan lab exec --name {name} host1")
        click.echo(f"   spanlan lab docker --name {name} host1 -- exec -it on-host1 sh")
        click.echo(f"and remove it with\n   spanlan lab down --name {name}")


def _after_dashes(words: tuple[str, ...]) -> list[str]:
    """The words behind a leading ``--``, which click leaves in place once it has seen HOST."""
    return list(words[1:] if words[:1] == ("--",) else words)


def _show(standing: Lab) -> None:
    etcd = "answers" if standing.etcd.answers() else "does not answer"
    click.echo(f"lab {standing.name}: etcd at {standing.etcd.endpoint} {etcd}")
    _row("host", "address", "address6", "engine", "daemon", "storage", "PID 1")
    for host in standing.hosts:
        if not host.up:
            _row(host.name, host.address, host.address6, "down", "down", "", "")
            continue
        engine = "up" if host.engine_answers() else "down"
        daemon = "up" if host.daemon_answers() else "down" if standing.equipment.daemon else "-"
        _row(host.name, host.address, host.address6, engine, daemon, host.storage_driver, str(host.pid))


def _row(*cells: str) -> None:
    line = "  ".join(column.format(cell) for column, cell in zip(_COLUMNS, cells, strict=True))
    click.echo(f"  {line}".rstrip())


def _find(name: str) -> Lab:
    check_root()
    return Lab.find(name)


def _standing(name: str) -> Lab | None:
    try:
        return _find(name)
    except Gone:
        return None


def _named(name: str) -> str:
    return "" if name == DEFAULT_NAME else f" --name {name}"


def _tell(text: str) -> None:
    click.echo(text, err=True)


def _become(command: list[str], environment: dict[str, str]) -> NoReturn:
    """Replace this process, so that terminal, signals and exit status are the command's own."""
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - no shell is what we want
    except OSError as error:
        raise Broken(f"{command[0]} cannot be run: {error}") from error


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    """A polite signal in the middle of ``up`` ends it as an error does: what was made is removed."""
    raise SystemExit(128 + number)
