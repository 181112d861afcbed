"""Tests that need ipvlan and 802.1Q: they run in the guest, or with ``VM=off`` on a kernel that has both."""

import os
from collections.abc import Callable, Iterator

import pytest

from lab.fixtures import clean_lab, lab_logs, make_lab, no_ruins, raise_lab
from namespaces import namespace, new_namespace
from netns import NetworkNamespace
from spanlan.lab import Lab
from vm.reporting import tell
from vm.trunk import LanLab, Router

pytest_runtest_makereport = lab_logs

__all__ = ["clean_lab", "make_lab", "namespace", "new_namespace", "no_ruins", "pytest_runtest_makereport", "raise_lab"]

KINDS = {"ipvlan": "ipvlan", "vlan": "8021q", "macvlan": "macvlan", "vxlan": "vxlan"}
"""Kind of link to the kernel's module."""


@pytest.fixture(scope="session", autouse=True)
def _kernel_has_what_it_takes() -> None:
    missing = missing_modules()
    if missing:
        pytest.fail(f"this kernel ({os.uname().release}) lacks {', '.join(missing)}: modprobe them", pytrace=False)


def missing_modules() -> list[str]:
    """Modules of the links that this kernel cannot make."""
    options = {"vlan": ("id", "10"), "vxlan": ("id", "10", "dstport", "4789")}
    with NetworkNamespace() as here:
        for kind in KINDS:
            here.command("ip", "link", "add", f"under-{kind}", "type", "veth", "peer", "name", f"peer-{kind}")
            words = ("name", f"on-{kind}", "type", kind, *options.get(kind, ()))
            here.command("ip", "link", "add", "link", f"under-{kind}", *words, check=False)
        made = {link["ifname"] for link in here.json("ip", "-j", "link", "show")}
    return [module for kind, module in KINDS.items() if f"on-{kind}" not in made]


@pytest.fixture(scope="session")
def lab(raise_lab: Callable[..., Lab]) -> Lab:
    """The shared lab: two hosts with engines and daemons, and etcd."""
    # A translated processor keeps a daemon from its lease for longer than ten seconds at times.
    return raise_lab(hosts=2, daemon_environment={"SPANLAN_LEASE_TTL": "60"}, progress=tell)


@pytest.fixture(scope="session")
def lan_lab(lab: Lab) -> Iterator[LanLab]:
    """The shared lab as a LAN: hosts ``a`` and ``b`` whose ``eth0`` is a trunk, and a router between VLANs 10 and 20.

    What several tests look at is made once, in a fixture of module scope that leaves nothing:

        @pytest.fixture(scope="module")
        def pair(lan_lab):
            with kept_clean(lan_lab.lab):
                leg = lan_lab.router.leg(10)
                create(lan_lab.hosts, "ten", "-o", "mode=ipvlan", "-o", "parent=eth0.10", *leg.words())
                yield lan_lab.on_both(lambda host: start(host, "member", "ten"))

        def test_the_tag_is_on_the_wire(lan_lab, pair):
            one, other = pair
            with lan_lab.wire() as wire:
                assert one.pings(other.address)
                wire.wait_for("vlan 10", f"{one.address} > {other.address}", "echo request")
    """
    router = Router(lab)
    yield LanLab(lab, router)
    router.remove()
