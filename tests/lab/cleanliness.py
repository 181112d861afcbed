"""What tests may not leave behind in a lab that they share."""

import contextlib
import json

from spanlan.errors import Broken
from spanlan.lab import Lab
from spanlan.lab.commands import until

OUR_KINDS = {"vxlan", "macvlan", "ipvlan"}
STORE_ROOT = "/spanlan/v1"
SECONDS = 15.0


def assert_nothing_left(lab: Lab) -> None:
    """No link of spanlan on any host, no container, and no store key but the hosts' own records, within 15 s."""
    with contextlib.suppress(Broken):
        until(lambda: not leftovers(lab), seconds=SECONDS, what="the last of spanlan going")
    left = leftovers(lab)
    assert left == [], left


def leftovers(lab: Lab) -> list[str]:
    left = [f"store key {key}" for key in lab.store_keys(STORE_ROOT) if not key.startswith(f"{STORE_ROOT}/hosts/")]
    for host in lab.hosts:
        left += [f"{host.name}: container {name}" for name in host.docker("ps", "-aq").stdout.split()]
        for link in json.loads(host.run(["ip", "-d", "-j", "link", "show"]).stdout):
            alias, kind = link.get("ifalias", ""), link.get("linkinfo", {}).get("info_kind")
            if alias.startswith("spanlan ") or kind in OUR_KINDS:
                left.append(f"{host.name}: {kind} link {link['ifname']} ({alias})")
    return left


def heal(lab: Lab) -> None:
    """Bring back what a test switched off, so that its failure is its own and not the next test's."""
    if not lab.etcd.service.running:
        lab.etcd.start()
    lab.etcd.resume()
    for host in lab.hosts:
        if not host.up:
            host.boot()
        if lab.equipment.daemon and not host.daemon_answers():
            host.kill_daemon()
            host.start_daemon()
        if not host.engine_answers():
            host.kill_engine()
            host.start_engine()
