"""Settings: one table, every mistake told at once, nothing secret repeated."""

from pathlib import Path

import pytest

from spanlan import settings
from spanlan.control.ipam import parse_default_pools
from spanlan.errors import Refuse
from spanlan.settings import Listen


def read(flags=None, **environment):
    return settings.read(environment, flags, host_name=lambda: "box")


def refusal(flags=None, **environment) -> str:
    with pytest.raises(Refuse) as refused:
        read(flags, **environment)
    return str(refused.value)


def test_without_settings_one_host_works_with_a_file():
    chosen = read()
    assert chosen.store == "sqlite:///var/lib/spanlan/spanlan.db"
    assert chosen.host == "box"
    assert chosen.underlay is None
    assert chosen.socket == Path("/run/docker/plugins/spanlan.sock")
    assert chosen.state_dir == Path("/var/lib/spanlan")
    assert chosen.http == Listen("127.0.0.1", 9580)
    assert (chosen.log, chosen.lease_ttl, chosen.resync) == ("info", 10, 300)
    assert parse_default_pools(chosen.default_pools)


def test_every_default_passes_its_own_check():
    fresh = settings.Settings()
    written = {
        row.names[1]: str(value)
        for row in settings.table()
        if (value := getattr(fresh, row.names[0])) is not None and value != ""
    }
    assert read(**written) == read()


def test_a_flag_wins_over_its_variable():
    assert read({"log": "debug"}, SPANLAN_LOG="error").log == "debug"


def test_an_empty_variable_counts_as_not_set():
    assert read(**{row.names[1]: "" for row in settings.table()}) == read()


def test_a_misspelt_variable_is_refused_with_the_right_one():
    assert refusal(SPANLAN_STOER="x") == "unknown setting SPANLAN_STOER: did you mean SPANLAN_STORE?"


def test_a_misspelt_variable_names_a_variable_even_if_the_right_one_is_given_as_a_flag():
    assert "did you mean SPANLAN_LOG?" in refusal({"log": "debug"}, SPANLAN_LOGG="x")


def test_variables_of_other_programs_are_left_alone():
    assert read(DOCKER_HOST="x", PATH="/bin") == read()


def test_all_mistakes_are_told_at_once():
    told = refusal({"resync": "1"}, SPANLAN_LOG="loud", SPANLAN_LEASE_TTL="x", SPANLAN_STOER="y", SPANLAN_ETCD_USER="u")
    for part in [
        "--resync=1: must be a number from 5 to 86400",
        "SPANLAN_LOG=loud: must be one of debug, info, warning, error",
        "SPANLAN_LEASE_TTL=x: must be a number from 3 to 3600",
        "unknown setting SPANLAN_STOER",
        "SPANLAN_ETCD_USER needs SPANLAN_ETCD_PASSWORD_FILE",
    ]:
        assert part in told


@pytest.mark.parametrize(
    "store",
    [
        "sqlite:///data/spanlan.db",
        "etcd://10.0.0.1:2379",
        "etcd://10.0.0.1,[fd00::1]",
        "etcd://a:2379,b:2379,[fd00::1]:2379/team/spanlan",
        "etcds://etcd.example.org:2379/",
    ],
)
def test_a_store_address_is_taken_as_it_stands(store):
    assert read(SPANLAN_STORE=store).store == store


@pytest.mark.parametrize(
    "store",
    [
        "spanlan.db",
        "sqlite://relative.db",
        "sqlite:///",
        "sqlite:///folder/",
        "http://10.0.0.1:2379",
        "etcd://",
        "etcd://10.0.0.1:0",
        "etcd://10.0.0.1:65536",
        "etcd://a:2379,,b:2379",
        "etcd://[fd00::1:2379",
        "etcd://[1.2.3.4]:2379",
        "etcd://a:2379/x?y=z",
    ],
)
def test_a_store_address_that_cannot_work_is_refused(store):
    assert f"SPANLAN_STORE={store}: must be" in refusal(SPANLAN_STORE=store)


def test_a_password_in_the_store_address_is_refused_and_not_repeated():
    told = refusal(SPANLAN_STORE="etcd://root:secret@10.0.0.1:2379/x")
    assert "SPANLAN_ETCD_PASSWORD_FILE" in told
    assert "secret" not in told


def test_a_file_that_is_not_there_is_refused_before_anything_starts(tmp_path):
    missing = tmp_path / "ca.pem"
    told = refusal(SPANLAN_STORE="etcds://a:2379", SPANLAN_ETCD_CA=str(missing))
    assert told == f"setting SPANLAN_ETCD_CA={missing}: must be an existing file"


def test_settings_of_etcd_come_in_pairs(tmp_path):
    file = tmp_path / "file"
    file.touch()
    told = refusal(SPANLAN_STORE="etcds://a:2379", SPANLAN_ETCD_CERT=str(file), SPANLAN_ETCD_PASSWORD_FILE=str(file))
    assert "SPANLAN_ETCD_CERT needs SPANLAN_ETCD_KEY" in told
    assert "SPANLAN_ETCD_PASSWORD_FILE needs SPANLAN_ETCD_USER" in told


def test_certificates_without_tls_are_a_mistake_not_a_silent_plain_connection(tmp_path):
    file = tmp_path / "ca.pem"
    file.touch()
    told = refusal(SPANLAN_STORE="etcd://a:2379", SPANLAN_ETCD_CA=str(file))
    assert told == "setting SPANLAN_ETCD_CA needs a store at etcds://… (TLS)"


def test_settings_of_etcd_without_etcd_are_a_mistake(tmp_path):
    file = tmp_path / "password"
    file.touch()
    told = refusal(SPANLAN_ETCD_USER="root", SPANLAN_ETCD_PASSWORD_FILE=str(file))
    assert "SPANLAN_ETCD_USER needs a store at etcd://" in told


def test_a_complete_cluster_is_accepted(tmp_path):
    file = tmp_path / "file"
    file.touch()
    names = ["CA", "CERT", "KEY", "PASSWORD_FILE"]
    given = {f"SPANLAN_ETCD_{name}": str(file) for name in names} | {"SPANLAN_ETCD_USER": "root"}
    chosen = read(SPANLAN_STORE="etcds://a:2379", **given)
    assert (chosen.etcd_ca, chosen.etcd_user) == (file, "root")


def test_hosts_of_a_cluster_cannot_all_be_called_localhost():
    with pytest.raises(Refuse, match="SPANLAN_HOST"):
        settings.read({"SPANLAN_STORE": "etcd://a:2379"}, host_name=lambda: "localhost")


def test_a_host_name_that_cannot_be_a_key_is_refused_under_the_settings_name():
    with pytest.raises(Refuse, match="SPANLAN_HOST=my host: must be 1 to 63"):
        settings.read({}, host_name=lambda: "my host")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.0.0.0:80", Listen("0.0.0.0", 80)), ("[::1]:9580", Listen("::1", 9580)), ("off", None), ("OFF", None)],  # noqa: S104
)
def test_the_page_listens_where_it_is_told(text, expected):
    assert read(SPANLAN_HTTP=text).http == expected


@pytest.mark.parametrize(
    "text", ["9580", ":9580", "::1:9580", "127.0.0.1:0", "127.0.0.1:99999", "[nonsense]:1", "a b:1"]
)
def test_the_page_refuses_an_address_that_is_none(text):
    assert "SPANLAN_HTTP" in refusal(SPANLAN_HTTP=text)


@pytest.mark.parametrize("text", ["eth0", "bond0.10", "192.0.2.1", "2001:db8::1"])
def test_an_underlay_is_an_interface_or_an_address(text):
    assert read(SPANLAN_UNDERLAY=text).underlay == text


@pytest.mark.parametrize("text", ["a-name-of-16-char", "eth 0", "../eth0", "127.0.0.1", "0.0.0.0", "ff02::1"])  # noqa: S104
def test_an_underlay_that_no_other_host_could_reach_is_refused(text):
    assert "SPANLAN_UNDERLAY" in refusal(SPANLAN_UNDERLAY=text)


@pytest.mark.parametrize("text", ["10.0.0.0/8", "10.0.0.1/8/24", "10.0.0.0/24/16", ",", "pool"])
def test_default_pools_are_checked_when_the_daemon_starts(text):
    assert f"SPANLAN_DEFAULT_POOLS={text}: must be" in refusal(SPANLAN_DEFAULT_POOLS=text)


@pytest.mark.parametrize("name", ["SPANLAN_SOCKET", "SPANLAN_STATE_DIR"])
def test_paths_are_absolute_because_a_daemon_has_no_current_directory(name):
    assert refusal(**{name: "relative"}) == f"setting {name}=relative: must be an absolute path"


def test_a_listen_address_is_printed_as_it_is_typed():
    assert [str(Listen("::1", 1)), str(Listen("127.0.0.1", 2))] == ["[::1]:1", "127.0.0.1:2"]
