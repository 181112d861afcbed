"""Every module can be imported first, alone, and without a warning: nobody leans on somebody else's imports."""

import pkgutil
import subprocess
import sys

import spanlan

# Each module is imported by a child of its own, forked from an interpreter that holds other people's packages and
# nothing of ours: as fresh as a new interpreter where it matters, in a tenth of the time.
_EACH_ALONE = """
import importlib, os, sys, traceback, warnings
import click, flask, google.protobuf, grpc, prometheus_client, pyroute2, waitress

def alone(name):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            warnings.simplefilter("error")
            importlib.import_module(name)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

for name in sys.argv[1:]:
    if alone(name) != 0:
        print(name)
assert not [name for name in sys.modules if name.startswith("spanlan")]
"""


def modules():
    found = pkgutil.walk_packages(spanlan.__path__, "spanlan.", onerror=lambda name: None)
    return ["spanlan", *(module.name for module in found if module.name != "spanlan.__main__")]


def test_every_module_can_be_imported_alone_with_warnings_as_errors():
    told = subprocess.run(
        [sys.executable, "-c", _EACH_ALONE, *modules()], capture_output=True, text=True, check=True, timeout=110
    )
    assert told.stdout.split() == [], told.stderr


def test_the_walk_finds_the_rooms():
    found = set(modules())
    assert {"spanlan.settings", "spanlan.web.server", "spanlan.store.base", "spanlan.drivers.vxlan"} <= found


def test_nothing_that_ships_imports_the_tests_or_their_tools():
    code = "import sys, spanlan.cli.serve, spanlan.web.server; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pytest", "_pytest", "hypothesis", "tests", "pyetcd"} & set(loaded)
