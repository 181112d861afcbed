"""The lab keeps its promises: hosts that are machines of their own, and nothing left behind, whatever happens."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import spanlan
from lab.cleanliness import leftovers
from spanlan.errors import Broken, Gone, Refuse, Retry
from spanlan.lab import IMAGE, Lab, commands, processes, removal, requirements
from spanlan.lab.commands import until
from spanlan.lab.lock import exclusive
from spanlan.lab.names import CGROUP_ROOT, DISK_ROOT, MARK, PREFIX, RUN_ROOT, Names

MakeLab = Callable[..., Lab]
SOURCE_ROOT = str(Path(spanlan.__file__).parent.parent)


@pytest.fixture(scope="module")
def plain_lab(raise_lab: MakeLab) -> Lab:
    """Two hosts with engines but no daemons: the lab's own ways, whatever state the daemon is in."""
    return raise_lab(hosts=2, daemon=False)


def python(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-u", *arguments],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONPATH": SOURCE_ROOT},
    )


def command_line(*arguments: str) -> "subprocess.CompletedProcess[str]":
    process = python("-m", "spanlan", "lab", *arguments)
    output, _ = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, output)


def machine_state(names: Names) -> dict[str, set[str]]:
    """What a lab could leave behind on this machine, without that of other labs that come and go meanwhile."""

    def of_others(text: str) -> bool:
        return PREFIX in text and names.prefix not in text

    mounts = {line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    groups = {str(path) for path in CGROUP_ROOT.glob("*/*")} | {str(path) for path in CGROUP_ROOT.glob("*")}
    namespaces = set(commands.run(["ip", "netns", "list"]).stdout.splitlines())
    # ip-netns(8) makes /run/netns a mount at its first use, and leaves it so.
    return {
        "mounts": {mount for mount in mounts if not of_others(mount) and mount != "/run/netns"},
        "control groups": {group for group in groups if not of_others(group)},
        "network namespaces": {line for line in namespaces if not of_others(line)},
        "links": set(commands.run(["ip", "-o", "link"]).stdout.splitlines()),
        "folders": {str(path) for root in (RUN_ROOT, DISK_ROOT) for path in root.glob(f"{names.lab}*")},
    }


def namespace(pid: str, kind: str) -> str:
    return str(Path("/proc", pid, "ns", kind).readlink())


def namespaces_of(lab: Lab) -> set[str]:
    """Every namespace that a process of the lab is in and we are not."""
    kinds = ("net", "mnt", "pid", "uts", "ipc")
    ours = {namespace("self", kind) for kind in kinds}
    pids = [pid for pid, _ in processes.marked(lab.name)]
    return {namespace(f"{pid}", kind) for pid in pids for kind in kinds} - ours


def members(namespaces: set[str]) -> list[str]:
    """Living processes in these namespaces; one that has ended and waits for this machine's init counts no more."""
    found = []
    for link in Path("/proc").glob("[0-9]*/ns/*"):
        with contextlib.suppress(OSError):
            state = link.parent.parent.joinpath("stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and str(link.readlink()) in namespaces:
                found.append(f"{link} {link.parent.parent.joinpath('comm').read_text()}")
    return found


class TestDown:
    def test_a_lab_that_ran_containers_leaves_no_process_mount_namespace_control_group_or_file(
        self, make_lab: MakeLab
    ) -> None:
        lab = make_lab(hosts=2, daemon=False, up=False)
        before = machine_state(lab.names)
        lab.up()
        for host in lab.hosts:
            host.docker("run", "-d", "--name", "still-running", IMAGE, "sleep", "600")
        inhabited = namespaces_of(lab)
        assert len(inhabited) >= len(lab.hosts) * 5
        assert machine_state(lab.names) != before

        lab.down()

        assert removal.traces(lab.names) == []
        assert machine_state(lab.names) == before
        assert members(inhabited) == []

    @pytest.mark.parametrize("reached", ["LAN and etcd", "container image", "host1 boots", "host2 is up"])
    def test_what_a_killed_up_leaves_is_found_without_any_record_and_removed(
        self, make_lab: MakeLab, reached: str
    ) -> None:
        ruin = make_lab(hosts=2, daemon=False, up=False)
        code = "import sys; from spanlan.lab import Lab; Lab(sys.argv[1], hosts=2, daemon=False, progress=print).up()"
        with python("-c", code, ruin.name) as upping:
            assert upping.stdout is not None
            for line in upping.stdout:
                if line.startswith(reached):
                    break
            else:
                pytest.fail(f"`up` ended before it said {reached!r}")
            upping.kill()
        shutil.rmtree(ruin.names.run_dir, ignore_errors=True)

        ruin.down()

        assert removal.traces(ruin.names) == []
        assert ruin.name not in removal.labs()

    def test_ruins_are_named_with_the_cure_and_not_built_upon(self, make_lab: MakeLab) -> None:
        ruin = make_lab(hosts=1, daemon=False, up=False)
        ruin.names.disk_dir.mkdir(parents=True)
        with pytest.raises(Refuse, match=f"spanlan lab down --name {ruin.name}"):
            ruin.up()
        with pytest.raises(Broken, match=f"spanlan lab down --name {ruin.name}"):
            Lab.find(ruin.name)

    def test_a_lab_that_never_was_goes_down_without_a_trace_of_the_attempt(self, make_lab: MakeLab) -> None:
        lab = make_lab(up=False)
        before = machine_state(lab.names)
        lab.down()
        assert machine_state(lab.names) == before

    def test_mount_points_that_this_machine_had_not_go_with_the_last_lab_unless_somebody_uses_them(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        there, made, used = (tmp_path / name for name in ("there", "made", "used"))
        there.mkdir()
        monkeypatch.setattr(removal, "MOUNT_POINTS", {str(path): path.name for path in (there, made, used)})
        monkeypatch.setattr(removal, "_MADE", tmp_path / "record")
        removal.ensure_mount_points()
        (used / "file").touch()

        monkeypatch.setattr(removal, "labs", lambda: ["another"])
        removal._forget_mount_points()
        assert made.exists()
        monkeypatch.setattr(removal, "labs", list)
        removal._forget_mount_points()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["there", "used"]

    def test_a_bystander_that_bears_the_mark_is_not_killed(self, make_lab: MakeLab) -> None:
        lab = make_lab(hosts=1, daemon=False)
        mark = lab.names.mark("host1.init")
        with subprocess.Popen(["sleep", "600"], env=os.environ | {MARK: mark}) as bystander:
            lab.down()
            assert bystander.poll() is None
            bystander.kill()

    def test_a_pid_file_that_names_another_process_harms_nobody(self, plain_lab: Lab) -> None:
        engine = plain_lab.hosts[0].engine
        known = engine.pid_file.read_text()
        with subprocess.Popen(["sleep", "600"]) as bystander:
            engine.pid_file.write_text(str(bystander.pid))
            try:
                assert not engine.running
                with pytest.raises(Gone, match="not running"):
                    engine.send(signal.SIGKILL)
                assert bystander.poll() is None
            finally:
                engine.pid_file.write_text(known)
                bystander.kill()


class TestUp:
    def test_a_second_up_is_refused_and_disturbs_nothing(self, plain_lab: Lab) -> None:
        pids = [host.pid for host in plain_lab.hosts]
        with pytest.raises(Refuse, match=f"lab {plain_lab.name} is up already"):
            Lab(plain_lab.name, hosts=2, daemon=False).up()
        assert [host.pid for host in Lab.find(plain_lab.name).hosts] == pids
        assert all(host.engine_answers() for host in plain_lab.hosts)

    def test_an_up_that_fails_says_why_with_the_log_and_leaves_nothing(self, make_lab: MakeLab) -> None:
        lab = make_lab(hosts=2, daemon=False, engine_arguments=["--no-such-flag"], up=False)
        with pytest.raises(Broken, match="unknown flag: --no-such-flag"):
            lab.up()
        assert removal.traces(lab.names) == []

    def test_two_labs_stand_side_by_side_with_the_same_addresses(self, plain_lab: Lab, make_lab: MakeLab) -> None:
        other = make_lab(hosts=1, daemon=False)
        plain_lab.etcdctl("put", "/side-by-side", "first")
        other.etcdctl("put", "/side-by-side", "second")
        assert plain_lab.etcdctl("get", "--print-value-only", "/side-by-side").stdout == "first\n"
        other.down()
        assert plain_lab.etcdctl("del", "/side-by-side").stdout.strip() == "1"
        assert all(host.engine_answers() for host in plain_lab.hosts)

    def test_two_commands_do_not_work_on_one_lab_at_the_same_time(self, make_lab: MakeLab) -> None:
        lab = make_lab(up=False, hosts=1, daemon=False)
        with exclusive(RUN_ROOT / f"{lab.name}.lock", seconds=1), pytest.raises(Retry, match="at work"):
            lab.up()

    def test_a_lab_that_is_at_work_is_told_from_ruins(self, make_lab: MakeLab) -> None:
        lab = make_lab(up=False, hosts=1, daemon=False)
        lab.names.disk_dir.mkdir(parents=True)
        with exclusive(RUN_ROOT / f"{lab.name}.lock", seconds=1), pytest.raises(Retry, match="right now"):
            Lab.find(lab.name)

    def test_missing_programs_are_named_with_the_command_that_installs_them(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(requirements, "search_path", lambda: "/nowhere")
        with pytest.raises(Refuse, match=r"needs dockerd, .* apt-get install .*docker\.io etcd-client etcd-server"):
            requirements.check()

    def test_without_root_it_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(Refuse, match="root"):
            requirements.check()

    @pytest.mark.parametrize("name", ["", "a.b", "a/b", "../x", "-x", "x" * 33, "ä"])
    def test_a_name_that_would_not_stay_apart_is_refused(self, name: str) -> None:
        with pytest.raises(Refuse, match="cannot be named"):
            Lab(name)


class TestHosts:
    def test_a_host_has_its_own_name_processes_run_folder_and_disks(self, plain_lab: Lab) -> None:
        first, second = plain_lab.hosts
        assert first.run(["hostname"]).stdout.strip() == "host1"
        assert first.run(["readlink", "/proc/self/ns/pid"]).stdout.strip() == namespace(f"{first.pid}", "pid")
        first.run(["touch", "/run/mine", "/var/lib/spanlan/mine", "/etc/docker/mine", "/var/lib/docker/mine"])
        for folder in ("/run", "/var/lib/spanlan", "/etc/docker", "/var/lib/docker"):
            assert (first.root / folder.lstrip("/") / "mine").exists()
            assert second.run(["test", "-e", f"{folder}/mine"], check=False).returncode == 1
            assert not Path(folder, "mine").exists()

    @pytest.mark.parametrize("address", ["10.99.0.2", "fd99::2", "10.99.0.250", "fd99::250"])
    def test_hosts_reach_each_other_and_their_router_at_an_mtu_of_1500(self, plain_lab: Lab, address: str) -> None:
        headers = 48 if ":" in address else 28
        ping = ["ping", "-c", "1", "-W", "2", "-M", "do", "-s"]
        plain_lab.hosts[0].run([*ping, str(1500 - headers), address])
        assert plain_lab.hosts[0].run([*ping, str(1501 - headers), address], check=False).returncode != 0

    @pytest.mark.parametrize("family", ["-4", "-6"])
    def test_the_default_route_points_out_of_eth0(self, plain_lab: Lab, family: str) -> None:
        assert " dev eth0" in plain_lab.hosts[0].run(["ip", family, "route", "show", "default"]).stdout

    def test_a_container_on_dockers_own_bridge_reaches_the_lan(self, plain_lab: Lab) -> None:
        host = plain_lab.hosts[0]
        said = host.docker("run", "--rm", IMAGE, "ping", "-c", "1", "-W", "2", plain_lab.hosts[1].address).stdout
        assert "1 received" in said

    def test_the_image_has_the_tools_that_tests_and_demos_use(self, plain_lab: Lab) -> None:
        script = "ip -V && bridge -V && ping -V && curl -V && iperf3 -v && tcpdump --version && busybox | head -n 1"
        said = plain_lab.hosts[1].docker("run", "--rm", IMAGE, "sh", "-c", script).stdout
        for tool in ("iproute2", "iputils", "libcurl", "iperf 3", "libpcap", "BusyBox"):
            assert tool in said

    def test_a_containers_network_namespace_can_be_entered_from_outside(self, plain_lab: Lab) -> None:
        host = plain_lab.hosts[0]
        host.docker("run", "-d", "--name", "entered", IMAGE, "sleep", "600")
        try:
            command = ["nsenter", f"--net={host.container_netns('entered')}", "ip", "-br", "addr", "show", "eth0"]
            assert "172.17.0." in commands.run(command).stdout
        finally:
            host.docker("rm", "-f", "entered")
        with pytest.raises(Broken, match="entered"):
            host.container_netns("entered")

    def test_the_sdk_talks_to_the_hosts_own_engine(self, plain_lab: Lab) -> None:
        for host in plain_lab.hosts:
            with closing(host.docker_client()) as client:
                assert client.info()["Name"] == host.name

    def test_a_command_that_takes_too_long_ends_on_the_host_too(self, plain_lab: Lab) -> None:
        host = plain_lab.hosts[0]
        with pytest.raises(Broken, match=r"did not end within 0\.3 s"):
            host.run(["sleep", "98765"], timeout=0.3)
        gone = until(lambda: "98765" not in host.run(["ps", "-e", "-o", "args"]).stdout, seconds=5, what="its end")
        assert gone

    def test_a_command_that_fails_says_what_it_said(self, plain_lab: Lab) -> None:
        with pytest.raises(Broken, match="nonexistent"):
            plain_lab.hosts[0].run(["ls", "/nonexistent"])

    def test_a_host_that_the_lab_has_not_is_refused_with_those_it_has(self, plain_lab: Lab) -> None:
        with pytest.raises(Refuse, match="host1, host2"):
            plain_lab.host("host3")


class TestCrashes:
    def test_a_host_that_crashed_boots_again_with_its_images_and_without_its_kernel_state(self, plain_lab: Lab) -> None:
        first, second = plain_lab.hosts
        first.docker("tag", IMAGE, "kept:1")
        first.docker("run", "-d", "--name", "cut-off", IMAGE, "sleep", "600")
        first.run(["ip", "link", "add", "lost", "type", "bridge"])
        old = first.pid
        first.crash()
        assert not first.up
        assert not first.engine.running
        with pytest.raises(Gone, match=r"host1 .* is down"):
            first.run(["true"])
        assert second.run(["ping", "-c", "1", "-W", "1", first.address], check=False).returncode != 0

        first.boot()

        assert first.pid != old
        assert first.docker("image", "ls", "-q", "kept:1").stdout
        assert first.docker("ps", "-a", "--filter", "name=cut-off", "--format", "{{.State}}").stdout.strip() == "exited"
        assert first.run(["ip", "link", "show", "lost"], check=False).returncode != 0
        second.run(["ping", "-c", "1", "-W", "2", first.address])
        first.docker("rm", "cut-off")

    def test_an_engine_that_was_killed_starts_again(self, plain_lab: Lab) -> None:
        host = plain_lab.hosts[1]
        host.kill_engine()
        assert not host.engine_answers()
        host.start_engine()
        assert host.docker("info", "--format", "{{.Name}}").stdout.strip() == "host2"

    def test_an_engine_stops_politely(self, plain_lab: Lab) -> None:
        host = plain_lab.hosts[1]
        host.stop_engine()
        assert not host.engine.running
        host.start_engine()

    def test_etcd_keeps_what_it_knows_over_kill_and_start(self, plain_lab: Lab) -> None:
        plain_lab.etcdctl("put", "/kept", "yes")
        plain_lab.etcd.kill()
        assert not plain_lab.etcd.answers()
        plain_lab.etcd.start()
        assert plain_lab.store_keys("/kept") == ["/kept"]
        plain_lab.etcdctl("del", "/kept")

    def test_a_paused_etcd_is_silent_and_goes_on_when_resumed(self, plain_lab: Lab) -> None:
        plain_lab.etcd.pause()
        try:
            assert not plain_lab.etcd.answers()
        finally:
            plain_lab.etcd.resume()
        until(plain_lab.etcd.answers, seconds=10, what="etcd's answer")


class TestDaemons:
    def test_every_host_runs_a_daemon_that_its_engine_finds(self, clean_lab: Lab) -> None:
        for host in clean_lab.hosts:
            assert host.daemon_answers()
            assert host.plugin_socket.is_socket()
        keys = clean_lab.store_keys("/spanlan/v1/hosts/")
        assert keys == ["/spanlan/v1/hosts/host1", "/spanlan/v1/hosts/host2"]

    def test_with_an_ipv6_underlay_the_daemons_offer_ipv6_tunnel_ends(self, make_lab: MakeLab) -> None:
        lab = make_lab(hosts=1, ipv6_underlay=True)
        host = lab.hosts[0]
        network = ("-d", "spanlan", "--ipam-driver", "spanlan", "--subnet", "10.42.0.0/16", "-o", "segment=six", "six")
        host.docker("network", "create", *network)
        host.docker("run", "-d", "--network", "six", IMAGE, "sleep", "600")
        assert f"local {host.address6} " in host.run(["ip", "-d", "link", "show", "type", "vxlan"]).stdout

    def test_what_a_test_leaves_behind_is_noticed(self, clean_lab: Lab) -> None:
        host = clean_lab.hosts[1]
        host.run(["ip", "link", "add", "forgotten", "type", "bridge"])
        host.run(["ip", "link", "set", "forgotten", "alias", "spanlan segment x"])
        host.docker("create", "--name", "forgotten", IMAGE)
        clean_lab.etcdctl("put", "/spanlan/v1/segments/x", "")
        left = " ".join(leftovers(clean_lab))
        assert "store key /spanlan/v1/segments/x" in left
        assert "host2: container" in left
        assert "bridge link forgotten" in left
        host.run(["ip", "link", "del", "forgotten"])
        clean_lab.etcdctl("del", "/spanlan/v1/segments/x")

    def test_a_daemon_can_be_stopped_killed_and_started_with_other_settings(self, clean_lab: Lab) -> None:
        host = clean_lab.hosts[0]
        host.stop_daemon()
        assert not host.daemon_answers()
        host.start_daemon({"SPANLAN_LOG": "debug"})
        host.kill_daemon()
        assert not host.daemon.running
        host.start_daemon()
        assert host.daemon_answers()


class TestCommands:
    def test_status_shows_every_host_and_what_answers(self, plain_lab: Lab) -> None:
        said = command_line("status", "--name", plain_lab.name).stdout
        assert "etcd at 10.99.0.250:2379 answers" in said
        for host in plain_lab.hosts:
            line = next(line.split() for line in said.splitlines() if host.name in line)
            assert line[1:5] == [host.address, host.address6, "up", "-"]

    def test_exec_gives_output_and_exit_status_of_the_command(self, plain_lab: Lab) -> None:
        result = command_line("exec", "--name", plain_lab.name, "host2", "--", "sh", "-c", "hostname; exit 3")
        assert (result.stdout, result.returncode) == ("host2\n", 3)

    def test_docker_talks_to_the_engine_of_the_host(self, plain_lab: Lab) -> None:
        result = command_line("docker", "--name", plain_lab.name, "host2", "info", "--format", "{{.Name}}")
        assert (result.stdout, result.returncode) == ("host2\n", 0)

    def test_logs_show_the_end_of_the_engines_log(self, plain_lab: Lab) -> None:
        result = command_line("logs", "--name", plain_lab.name, "--lines", "200", "host1", "dockerd")
        assert "API listen on /run/docker.sock" in result.stdout

    def test_up_says_that_it_is_up_already(self, plain_lab: Lab) -> None:
        result = command_line("up", "--name", plain_lab.name, "--no-daemon")
        assert "is up already" in result.stdout
        assert result.returncode == 0

    def test_down_of_an_unknown_lab_names_those_there_are(self, plain_lab: Lab) -> None:
        result = command_line("down", "--name", "no-such-lab")
        assert "there is no lab no-such-lab" in result.stdout
        assert plain_lab.name in result.stdout

    def test_a_terminated_up_takes_its_half_made_lab_down(self, make_lab: MakeLab) -> None:
        lab = make_lab(up=False)
        with python("-m", "spanlan", "lab", "up", "--no-daemon", "--name", lab.name) as upping:
            assert upping.stdout is not None
            assert any("host1 boots" in line for line in upping.stdout)
            upping.terminate()
            upping.communicate(timeout=60)
        assert removal.traces(lab.names) == []
