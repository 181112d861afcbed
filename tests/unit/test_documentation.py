"""What the documents say is what the code does."""

import ast
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from spanlan.cli import docs
from spanlan.drivers import DRIVERS
from spanlan.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path.relative_to(ROOT) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Distributions whose import name is another.
IMPORTED_AS = {"grpcio": "grpc", "protobuf": "google", "prometheus-client": "prometheus_client"}


def read(page) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def names(requirements) -> list[str]:
    return [re.match(r"[A-Za-z0-9._-]+", line).group() for line in requirements]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_tables_in_a_page_are_those_of_the_code(page):
    assert docs.refreshed(read(page)) == read(page), "make docs writes the tables afresh"


def test_the_readme_has_every_table():
    assert set(docs.blocks(read("README.md"))) == set(docs.tables())
    assert {f"options {mode}" for mode in DRIVERS} <= set(docs.tables())


def test_the_managed_plugin_takes_every_setting():
    assert json.loads(read("config.json"))["env"] == docs.plugin_environment(), "make docs writes the list afresh"


def test_the_managed_plugin_offers_both_drivers_on_the_hosts_network():
    config = json.loads(read("config.json"))
    assert config["interface"]["types"] == ["docker.networkdriver/1.0", "docker.ipamdriver/1.0"]
    assert config["network"] == {"type": "host"}
    sockets = [row["value"] for row in config["env"] if row["name"] == "SPANLAN_SOCKET"]
    assert sockets == ["/run/docker/plugins/" + config["interface"]["socket"]]


def test_the_image_starts_what_the_managed_plugin_starts():
    entrypoint = re.search(r"^ENTRYPOINT (.*)$", read("Dockerfile"), re.MULTILINE).group(1)
    assert json.loads(entrypoint) == json.loads(read("config.json"))["entrypoint"]


def links(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", read(page), flags=re.DOTALL)
    return re.findall(r"\[[^\]]+\]\(([^)\s]+)\)", text)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_within_the_documents_leads_somewhere(page):
    for link in links(page):
        if not re.match(r"[a-z]+:|#", link):
            assert (ROOT / page.parent / link.split("#")[0]).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_make_targets_that_documents_name_exist(page):
    known = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    named = re.findall(r"(?:`|^ {4,})make ([a-z][a-z-]*)", read(page), re.MULTILINE)
    assert set(named) - {"git"} <= known | {f"test-{world.name}" for world in (ROOT / "tests").iterdir()}


def test_every_dependency_has_its_line():
    text = read("docs/dependencies.md")
    wanted = names(PROJECT["dependencies"]) + names(PROJECT["optional-dependencies"]["dev"])
    listed = re.findall(r"^\| ([a-z][a-z0-9-]*) \|", text.split("## On the host")[0], re.MULTILINE)
    assert sorted(one for one in listed if one != "package") == sorted(wanted)


def test_what_ships_imports_exactly_the_packages_that_it_declares():
    imported = set()
    for file in (ROOT / "plugin").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    declared = {IMPORTED_AS.get(name, name) for name in names(PROJECT["dependencies"])}
    assert imported - set(sys.stdlib_module_names) - {"spanlan"} == declared


def test_every_metric_of_the_readme_exists():
    known = {family.name for family in Metrics().registry.collect()}
    named = set(re.findall(r"`(spanlan_[a-z_]+)`", read("README.md")))
    assert {name.removesuffix("_total") for name in named} <= known


@pytest.mark.parametrize("path", [".ci/run", "scripts/run-worlds", "scripts/install-debian-packages"])
def test_scripts_can_be_run(path):
    assert (ROOT / path).stat().st_mode & 0o111 == 0o111


def test_the_licence_is_the_one_that_is_declared():
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0" in read("LICENSE")
