"""The command: quick to answer, errors as messages and exit codes, logs of one line a record."""

import json
import logging
import subprocess
import sys
import types

import click
import pytest
from click.testing import CliRunner

from spanlan import __version__, cli
from spanlan.cli import docs
from spanlan.cli.logs import LineFormatter, configure_logging
from spanlan.errors import Broken, Gone, Refuse, Retry
from spanlan.settings import Settings, table


@pytest.fixture
def run(monkeypatch):
    for row in table():
        monkeypatch.delenv(row.names[1], raising=False)
    runner = CliRunner()

    def run(*arguments, **environment):
        return runner.invoke(cli.main, arguments, env=environment)

    return run


@pytest.fixture
def started(monkeypatch):
    """Stands where the daemon is: keeps the settings that it is started with."""
    seen = []
    module = types.ModuleType("spanlan.daemon")
    module.run = seen.append
    monkeypatch.setitem(sys.modules, "spanlan.daemon", module)
    monkeypatch.setattr("spanlan.cli.serve.configure_logging", lambda level: None)
    return seen


def test_the_version_is_told(run):
    assert run("--version").output == f"spanlan {__version__}\n"


def test_help_lists_every_command_with_its_own_words(run):
    output = run("--help").output
    for name, (_, summary) in cli.COMMANDS.items():
        assert name in output
        assert summary in output
        command = cli.main.get_command(click.Context(cli.main), name)
        assert command.name == name


def test_help_is_quick_because_it_imports_no_room():
    listing = "import sys; from spanlan.cli import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout
    loaded = set(output.split())
    assert not loaded & {"flask", "grpc", "pyroute2", "docker", "prometheus_client", "spanlan.settings", "spanlan.lab"}


def test_the_module_is_the_command():
    told = subprocess.run([sys.executable, "-m", "spanlan", "--version"], capture_output=True, text=True, check=True)
    assert told.stdout == f"spanlan {__version__}\n"


def test_an_unknown_command_is_a_usage_error(run):
    answer = run("sevre")
    assert answer.exit_code == 2
    assert "sevre" in answer.output


@pytest.mark.parametrize(
    ("error", "code"), [(Refuse("why"), 2), (Retry("why"), 75), (Gone("why"), 1), (Broken("why"), 70)]
)
def test_an_error_becomes_a_message_and_an_exit_code(run, started, monkeypatch, error, code):
    def fail(_):
        raise error

    monkeypatch.setattr(sys.modules["spanlan.daemon"], "run", fail)
    answer = run("serve")
    assert answer.exit_code == code
    assert answer.stderr == "spanlan: why\n"
    assert answer.stdout == ""


def test_serve_starts_the_daemon_with_the_settings_of_flags_and_environment(run, started):
    answer = run("serve", "--lease-ttl", "20", SPANLAN_HOST="a", SPANLAN_LEASE_TTL="30", SPANLAN_RESYNC="60")
    assert answer.exit_code == 0, answer.output
    assert started == [Settings(host="a", lease_ttl=20, resync=60)]


def test_serve_tells_all_mistakes_and_starts_nothing(run, started):
    answer = run("serve", "--log", "loud", SPANLAN_RESYNC="1", SPANLAN_HOTS="a")
    assert answer.exit_code == 2
    for part in ["--log=loud", "SPANLAN_RESYNC=1", "SPANLAN_HOTS: did you mean SPANLAN_HOST?"]:
        assert part in answer.stderr
    assert started == []


def test_every_setting_has_a_flag_and_its_variable_in_the_help(run):
    output = " ".join(run("serve", "--help", terminal_width="200").output.split())
    for row in table():
        assert row.names[1] in output
        assert row.names[2] in output


def test_the_tables_are_printed(run):
    output = run("docs").output
    assert "| `SPANLAN_STORE` | `--store` |" in output
    assert "options vxlan" in output


def test_a_file_gets_its_tables_and_keeps_the_rest(run, tmp_path):
    file = tmp_path / "page.md"
    file.write_text("before\n<!-- begin: settings -->\nyesterday\n<!-- end -->\nafter\n")
    assert run("docs", "--write", str(file)).exit_code == 0
    text = file.read_text()
    assert text.startswith("before\n<!-- begin: settings -->\n| variable |")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "yesterday" not in text
    assert docs.refreshed(text) == text


def test_an_unknown_table_is_refused(run, tmp_path):
    file = tmp_path / "page.md"
    file.write_text("<!-- begin: setings -->\n<!-- end -->\n")
    answer = run("docs", "--write", str(file))
    assert answer.exit_code == 2
    assert "unknown table setings: known are settings" in answer.stderr


def test_a_plugin_configuration_gets_its_variables(run, tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"workdir": "/", "env": []}')
    assert run("docs", "--write", str(file)).exit_code == 0
    assert json.loads(file.read_text()) == {"workdir": "/", "env": docs.plugin_environment()}


def record(message, *arguments, **more):
    made = logging.LogRecord("spanlan.x", logging.WARNING, __file__, 1, message, arguments, more.get("exc_info"))
    made.threadName = "sync"
    made.created = 0.25
    made.msecs = 250.0
    return made


def test_a_log_record_is_one_line_with_time_level_and_thread():
    assert (
        LineFormatter().format(record("two %s", "words"))
        == "1970-01-01T00:00:00.250Z warning sync spanlan.x: two words"
    )


def test_what_comes_from_outside_cannot_forge_a_log_line():
    line = LineFormatter().format(record("name %s", "a\n1970-01-01 error \x1b[31m"))
    assert "\n" not in line
    assert "\x1b" not in line
    assert "a\\n1970" in line


def test_a_traceback_stays_on_its_line():
    try:
        raise KeyError("x")  # noqa: TRY301
    except KeyError:
        line = LineFormatter().format(record("failed", exc_info=sys.exc_info()))
    assert "\n" not in line
    assert "KeyError" in line


def test_our_level_does_not_make_the_libraries_talk(capsys):
    root, ours = logging.getLogger(), logging.getLogger("spanlan")
    before = (root.handlers[:], root.level, ours.level)
    try:
        configure_logging("debug")
        logging.getLogger("spanlan.store").debug("ours")
        logging.getLogger("urllib3").info("theirs")
        logging.getLogger("urllib3").warning("their warning")
        told = capsys.readouterr().err
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:], root.level, ours.level = before
        root.manager._clear_cache()
    assert told.count("\n") == 2
    assert "debug MainThread spanlan.store: ours" in told
    assert "theirs" not in told
