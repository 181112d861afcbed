"""What users get to read when a command cannot be carried out: the option, its value, and the cure; and no remnant."""

from collections.abc import Callable
from contextlib import closing

import pytest
from docker.errors import APIError

from lab.cleanliness import leftovers
from lab.containers import create, line, links, pool_of, refusal, running, start
from spanlan.lab import IMAGE, Lab
from spanlan.lab.commands import until
from spanlan.lab.host import Host

SUBNETS = ("10.42.0.0/16",)


def refused_create(lab: Lab, *words: str) -> str:
    """What docker says to ``network create`` with these words; it must leave nothing behind."""
    before = set(links(lab.hosts[0]))
    said = refusal(lab.hosts[0], "network", "create", "-d", "spanlan", "--ipam-driver", "spanlan", *words, "blue")
    until(lambda: leftovers(lab) == [], seconds=10, what="the end of all that the refused network had begun")
    assert set(links(lab.hosts[0])) == before
    assert "blue" not in lab.hosts[0].docker("network", "ls", "--format", "{{.Name}}").stdout.split()
    return said


def options(*pairs: str) -> list[str]:
    return [word for pair in pairs for word in ("-o", pair)]


class TestOptions:
    def test_an_unknown_one_is_answered_with_the_nearest(self, clean_lab: Lab) -> None:
        said = refused_create(clean_lab, *options("segmnt=blue"))
        assert "unknown option segmnt: did you mean segment?" in said

    def test_one_that_is_like_none_is_answered_with_all(self, clean_lab: Lab) -> None:
        said = refused_create(clean_lab, *options("segment=blue", "qqqq=1"))
        assert "unknown option qqqq: known are" in said
        assert "segment, tos, ttl" in said

    def test_a_mode_that_there_is_not(self, clean_lab: Lab) -> None:
        said = refused_create(clean_lab, *options("segment=blue", "mode=vxlna"))
        assert "option mode=vxlna: must be one of" in said
        assert "did you mean vxlan?" in said

    @pytest.mark.parametrize("vni", ["0", "16777216", "-1", "x"])
    def test_a_vni_out_of_range(self, clean_lab: Lab, vni: str) -> None:
        said = refused_create(clean_lab, *options(f"vni={vni}"))
        assert f"option vni={vni}: must be a number from 1 to 16777215" in said

    def test_neither_segment_nor_vni(self, clean_lab: Lab) -> None:
        said = refused_create(clean_lab)
        assert "a name that every host can see: add -o segment=NAME" in said

    def test_a_segment_whose_name_cannot_be_one(self, clean_lab: Lab) -> None:
        said = refused_create(clean_lab, *options("segment=blue/green"))
        assert "option segment=blue/green: must be 1 to 63 letters" in said

    @pytest.mark.parametrize(
        ("parent", "why"), [("eth7", "no interface eth7"), ("10.1.2.3", "no interface of this host has the address")]
    )
    def test_a_parent_that_is_missing(self, clean_lab: Lab, parent: str, why: str) -> None:
        said = refused_create(clean_lab, *options("segment=blue", f"parent={parent}"))
        assert why in said
        assert parent in said
        assert "-o parent=" in said

    def test_two_spellings_of_one_option_that_contradict_each_other(self, clean_lab: Lab) -> None:
        said = refused_create(clean_lab, *options("segment=blue", "mtu=1400", "com.docker.network.driver.mtu=1300"))
        assert "mtu and com.docker.network.driver.mtu say different things" in said or (
            "com.docker.network.driver.mtu and mtu say different things" in said
        )

    def test_all_mistakes_of_a_line_are_told_at_once(self, clean_lab: Lab) -> None:
        wrong = ("segment=-", "vni=x", "prot=7", "ttl=900", "mtu=12", "udp_csum=maybe", "vxlan_port=0")
        said = refused_create(clean_lab, *options(*wrong))
        for mistake in wrong:
            name = mistake.partition("=")[0]
            assert f"unknown option {name}" in said if name == "prot" else f"option {mistake}: must be" in said

    def test_an_unknown_option_of_an_endpoint(self, clean_lab: Lab) -> None:
        here = clean_lab.hosts[0]
        create([here], "blue", subnets=SUBNETS)
        here.docker("run", "-d", "--stop-signal", "KILL", "--name", "plain", IMAGE, "sleep", "600")
        said = refusal(here, "network", "connect", "--driver-opt", "speed=fast", "blue", "plain")
        assert "unknown endpoint option speed" in said


class TestPools:
    def test_an_unknown_ipam_option_is_answered_with_the_nearest(self, clean_lab: Lab) -> None:
        said = refused_create(clean_lab, "--subnet", "10.42.0.0/16", "--ipam-opt", "segmnt=blue", *options("segment=a"))
        assert "--ipam-opt: unknown option segmnt: did you mean segment?" in said

    def test_a_subnet_that_overlaps_another_pool_of_the_cluster(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        create([here], "blue", subnets=("10.42.0.0/16",))
        said = refusal(there, *line("green", subnets=("10.42.128.0/17",)))
        assert "10.42.128.0/17 overlaps 10.42.0.0/16" in said
        assert "--ipam-opt segment=" in said
        assert pool_of(here, "blue") == "10.42.0.0/16"

    def test_an_ip_that_is_not_in_the_subnet(self, clean_lab: Lab) -> None:
        here = clean_lab.hosts[0]
        create([here], "blue", subnets=SUBNETS)
        said = refusal(here, "run", "--rm", "--network", "blue", "--ip", "10.43.0.9", IMAGE, "true")
        assert "10.43.0.9" in said

    def test_a_mac_address_that_another_container_of_the_segment_has(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        create(clean_lab.hosts, "blue", subnets=SUBNETS)
        start_with_mac(here, "first", "02:00:00:00:00:42")
        assert running(here, "first", "blue").links()["eth0"]["address"] == "02:00:00:00:00:42"
        with pytest.raises(APIError, match=r"MAC 02:00:00:00:00:42 on segment blue is used .* on host host1: .*--mac"):
            start_with_mac(there, "second", "02:00:00:00:00:42")


def start_with_mac(host: Host, name: str, mac: str) -> None:
    """As ``docker run --mac-address``, which newer command lines do not offer with older engines."""
    with closing(host.docker_client()) as client:
        client.containers.create(IMAGE, ["sleep", "600"], name=name, network="blue", mac_address=mac).start()


def forget_everything(host: Host) -> None:
    """Start the daemon as after the loss of its state directory."""
    host.stop_daemon()
    host.start_daemon({"SPANLAN_STATE_DIR": "/var/lib/spanlan/another"})


class TestANetworkThatTheDaemonDoesNotKnow:
    def test_docker_run_says_that_the_state_is_lost_and_the_cure_works(self, make_lab: Callable[..., Lab]) -> None:
        lab = make_lab(hosts=2)  # of its own: what the lost state stood for stays in the store
        here, there = lab.hosts
        create(lab.hosts, "blue", subnets=SUBNETS)
        far = start(there, "far", "blue")
        forget_everything(here)

        said = refusal(here, "run", "--name", "new", "--network", "blue", IMAGE, "sleep", "600")

        network = here.docker("network", "inspect", "--format", "{{.Id}}", "blue").stdout.strip()
        assert f"network {network} is unknown to spanlan on this host" in said
        assert "was its state directory removed?" in said
        assert "docker network rm" in said
        here.docker("rm", "new")
        here.docker("network", "rm", "blue")
        create([here], "blue", subnets=SUBNETS)
        assert start(here, "new", "blue").pings(far.address)

    def test_what_docker_removed_meanwhile_goes_with_the_network_when_the_state_is_back(self, clean_lab: Lab) -> None:
        here, there = clean_lab.hosts
        create(clean_lab.hosts, "blue", subnets=SUBNETS)
        start(here, "old", "blue", "--ip", "10.42.0.77")
        forget_everything(here)
        here.docker("rm", "-f", "old")  # the daemon knows no such endpoint, and docker does not listen to that
        here.stop_daemon()
        here.start_daemon()
        fresh = start(here, "fresh", "blue")
        assert fresh.pings(start(there, "far", "blue").address)
        here.docker("rm", "-f", "fresh")
        here.docker("network", "rm", "blue")
        endpoints = [key for key in clean_lab.store_keys("/") if "/endpoints/" in key]
        assert len(endpoints) == 1, endpoints
