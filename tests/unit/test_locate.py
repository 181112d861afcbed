"""Addresses of stores: what they mean, and what is said about those that mean nothing."""

import stat
from pathlib import Path

import pytest

from spanlan.errors import Broken, Refuse
from spanlan.store.etcd import EtcdStore
from spanlan.store.locate import Credentials, EtcdAddress, etcd_address, open_store
from spanlan.store.sqlite import SqliteStore

NOBODY = Credentials()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("etcd://h1:2379,h2:2380/lan", EtcdAddress(("h1:2379", "h2:2380"), "/lan/v1", tls=False)),
        ("etcd://h1,h2", EtcdAddress(("h1:2379", "h2:2379"), "/spanlan/v1", tls=False)),
        ("etcd://h1/", EtcdAddress(("h1:2379",), "/spanlan/v1", tls=False)),
        ("etcds://h1.example.org/a/b/", EtcdAddress(("h1.example.org:2379",), "/a/b/v1", tls=True)),
        ("etcd://192.0.2.1/", EtcdAddress(("192.0.2.1:2379",), "/spanlan/v1", tls=False)),
        ("etcd://[2001:DB8::1]:9,[::1]/x", EtcdAddress(("[2001:db8::1]:9", "[::1]:2379"), "/x/v1", tls=False)),
        ("etcd://[fe80::1%eth0]", EtcdAddress(("[fe80::1%eth0]:2379",), "/spanlan/v1", tls=False)),
        ("etcd://h1,h1:2379", EtcdAddress(("h1:2379",), "/spanlan/v1", tls=False)),
    ],
)
def test_an_address_of_etcd_names_members_and_a_place(url: str, expected: EtcdAddress) -> None:
    assert etcd_address(url) == expected


@pytest.mark.parametrize(
    ("url", "part", "cure"),
    [
        ("", "SPANLAN_STORE=:", "sqlite:///PATH"),
        ("/var/lib/spanlan.db", "/var/lib/spanlan.db", "sqlite:///PATH"),
        ("redis://h1", "SPANLAN_STORE=redis://h1", "etcds://HOST:PORT"),
        ("http://h1:2379", "no such store", "etcd://HOST:PORT"),
        ("sqlite:/var/lib/x.db", "sqlite:/var/lib/x.db", "sqlite:///PATH"),
        ("sqlite://relative.db", "relative.db", "absolute path"),
        ("sqlite:///var/lib/", "/var/lib/", "path of a file"),
        ("sqlite://", "SPANLAN_STORE=sqlite://", "absolute path"),
        ("etcd://", "''", "write HOST or HOST:PORT"),
        ("etcd:///prefix", "''", "write HOST or HOST:PORT"),
        ("etcd://h1,,h2", "''", "commas"),
        ("etcd://h1:port", "'h1:port'", "HOST:PORT"),
        ("etcd://h1:0", "'h1:0'", "1 to 65535"),
        ("etcd://h1:99999", "'h1:99999'", "1 to 65535"),
        ("etcd://fd00::1", "'fd00::1'", "brackets"),
        ("etcd://[h1]:2379", "'h1'", "IPv6"),
        ("etcd://[::1", "'[::1'", "brackets"),
        ("etcd://h1?timeout=3", "h1?timeout=3", "no meaning"),
        ("etcd://h 1", "h 1", "no meaning"),
    ],
)
def test_an_address_that_means_nothing_is_refused_with_the_cure(url: str, part: str, cure: str) -> None:
    with pytest.raises(Refuse) as refused:
        open_store(url, credentials=NOBODY)
    assert part in str(refused.value)
    assert cure in str(refused.value)


@pytest.mark.parametrize("url", ["etcd://root:secret@h1:2379", "etcds://root:secr@et@h1", "redis://:secret@h1"])
def test_a_password_in_an_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(Refuse) as refused:
        open_store(url, credentials=NOBODY)
    assert "secr" not in str(refused.value)


def test_a_file_is_opened_and_made_with_its_directory(tmp_path: Path) -> None:
    path = tmp_path / "lib" / "spanlan.db"
    store = open_store(f"sqlite://{path}", credentials=NOBODY)
    assert isinstance(store, SqliteStore)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    store.close()


def test_etcd_is_not_spoken_to_before_it_is_asked() -> None:
    store = open_store("etcd://192.0.2.1", credentials=NOBODY)
    assert isinstance(store, EtcdStore)
    store.close()


@pytest.mark.parametrize(
    ("url", "credentials", "message"),
    [
        ("etcd://h1", Credentials(ca_file=Path("/ca")), "SPANLAN_ETCD_CA is for TLS.*write etcds://"),
        ("etcds://h1", Credentials(cert_file=Path("/cert")), "SPANLAN_ETCD_CERT and SPANLAN_ETCD_KEY: give both"),
        ("etcds://h1", Credentials(key_file=Path("/key")), "SPANLAN_ETCD_CERT and SPANLAN_ETCD_KEY: give both"),
        ("etcd://h1", Credentials(user="root"), "SPANLAN_ETCD_PASSWORD_FILE: give both"),
        ("etcd://h1", Credentials(password_file=Path("/word")), "SPANLAN_ETCD_USER and .*: give both"),
    ],
)
def test_half_of_a_credential_is_refused(url: str, credentials: Credentials, message: str) -> None:
    with pytest.raises(Refuse, match=message):
        open_store(url, credentials=credentials)


def test_a_credential_that_cannot_be_read_is_broken(tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    with pytest.raises(Broken, match=f"SPANLAN_ETCD_CA={missing}: cannot be read .No such file"):
        open_store("etcds://h1", credentials=Credentials(ca_file=missing))


def test_a_certificate_that_is_none_is_broken(tmp_path: Path) -> None:
    wrong = tmp_path / "ca.der"
    wrong.write_bytes(b"\x30\x82\x01")
    with pytest.raises(Broken, match=f"SPANLAN_ETCD_CA={wrong}: the file is not PEM"):
        open_store("etcds://h1", credentials=Credentials(ca_file=wrong))


@pytest.mark.parametrize("content", [b"", b"\nsecret\n", b"\xff\xfesecret\n"], ids=["empty", "blank line", "not UTF-8"])
def test_a_password_file_without_a_password_is_broken_and_not_repeated(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    with pytest.raises(Broken, match=f"SPANLAN_ETCD_PASSWORD_FILE={file}") as broken:
        open_store("etcd://h1", credentials=Credentials(user="root", password_file=file))
    assert "secret" not in repr(broken.value)
    assert broken.value.__cause__ is None


@pytest.mark.parametrize("content", [b"pass word", b"pass word\n", b"pass word\r\n", b"pass word\nmore\n"])
def test_a_password_is_the_first_line_without_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    given = {}

    def remember(_endpoints: object, **options: object) -> None:
        given.update(options)

    monkeypatch.setattr("spanlan.store.etcd.EtcdStore", remember)
    file = tmp_path / "password"
    file.write_bytes(content)
    open_store("etcd://h1", credentials=Credentials(user="root", password_file=file))
    assert given["password"] == "pass word"
    assert given["user"] == "root"


def test_credentials_show_the_names_of_files_and_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret")
    assert "secret" not in repr(Credentials(user="root", password_file=file))
