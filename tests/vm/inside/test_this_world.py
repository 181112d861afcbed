"""The world itself: the kernel has what this machine's may lack, and the lab's hosts are hosts here too."""

import os

from spanlan.lab import IMAGE, Lab


def test_the_kernel_is_debians_unless_the_guest_was_declined() -> None:
    assert os.environ.get("VM") == "off" or "-cloud-amd64" in os.uname().release


def test_two_hosts_are_up_with_engines_daemons_and_a_store(lab: Lab) -> None:
    assert [host.engine_answers() and host.daemon_answers() for host in lab.hosts] == [True, True]
    assert len(lab.store_keys("/spanlan/v1/hosts/")) == 2
    for host in lab.hosts:
        assert host.storage_driver == "overlay2"
        assert host.docker("run", "--rm", "--network", "none", IMAGE, "hostname", "-s").stdout
