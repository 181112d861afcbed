"""etcd with TLS, client certificates, users and tokens: what works, and what is said when it does not."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from spanlan.errors import Broken
from spanlan.store import etcd3
from spanlan.store.base import Absent, Changes, InSync, Put
from spanlan.store.etcd import EtcdStore
from store.certificates import Authority, KeyPair
from store.etcd_server import EtcdServer, Tls
from store.followed import Followed

ROOT_PASSWORD, PASSWORD = "root-secret", "user-secret"


@pytest.fixture(scope="session")
def authority(etcd_directory: Path) -> Authority:
    return Authority(etcd_directory / "authority")


@pytest.fixture(scope="session")
def pair(authority: Authority) -> KeyPair:
    """The certificate of a client, for the user ``root``: its common name names it."""
    return authority.issue("root", usage="clientAuth")


@pytest.fixture(scope="session")
def locked(etcd_directory: Path, authority: Authority, pair: KeyPair) -> Iterator[EtcdServer]:
    """A server with everything on: TLS, client certificates, and the users root and spanlan (for /mine/ only)."""
    tls = Tls(authority.issue("server"), authority.certificate, demand_client_certificate=True)
    with EtcdServer(etcd_directory / "locked", tls=tls) as server:
        _lock(server.start(), pair)
        yield server


@pytest.fixture
def with_users(fragile: EtcdServer) -> EtcdServer:
    """A server with the same users and without TLS, for one test alone."""
    _lock(fragile)
    return fragile


def _lock(server: EtcdServer, pair: KeyPair | None = None) -> None:
    server.ctl("user", "add", f"spanlan:{PASSWORD}", pair=pair)
    server.ctl("role", "add", "mine", pair=pair)
    server.ctl("role", "grant-permission", "mine", "--prefix=true", "readwrite", "/mine/", pair=pair)
    server.ctl("user", "grant-role", "spanlan", "mine", pair=pair)
    server.enable_auth(ROOT_PASSWORD, pair=pair)


def _forge_token(client: etcd3.Client) -> None:
    """As if the server had forgotten the token: they end after minutes without use."""
    login = client._caller.login
    assert login is not None
    login._token = "forged.1"


# -- with TLS ------------------------------------------------------------------------------------------------------


def test_a_store_works_with_tls_a_client_certificate_and_a_user(
    locked: EtcdServer, authority: Authority, pair: KeyPair
):
    store = EtcdStore(
        [locked.endpoint],
        root="/mine/v1",
        ca=authority.certificate.read_bytes(),
        cert=pair.certificate.read_bytes(),
        key=pair.key.read_bytes(),
        user="spanlan",
        password=PASSWORD,
    )
    lease = store.lease(10)

    with Followed(store.watch("/")) as followed:
        followed.wait_for(InSync)
        assert store.commit([Absent("/k")], [Put("/k", b"v", lease)]).succeeded
        assert [change.key for change in followed.wait_for(Changes).changes] == ["/k"]
    lease.keepalive()
    lease.revoke()
    assert store.get("/k") is None
    store.close()


def test_the_common_name_of_a_certificate_serves_as_user(locked: EtcdServer, authority: Authority, pair: KeyPair):
    """What etcd's JSON gateway, and clients built on it, cannot do."""
    with etcd3.Client(
        [locked.endpoint],
        ca=authority.certificate.read_bytes(),
        cert=pair.certificate.read_bytes(),
        key=pair.key.read_bytes(),
    ) as client:
        assert client.put(b"/anywhere", b"v")


def test_a_server_that_is_not_trusted_is_named_with_the_reason(locked: EtcdServer, tmp_path: Path):
    other = Authority(tmp_path, "another authority")
    store = EtcdStore([locked.endpoint], ca=other.certificate.read_bytes())

    with pytest.raises(Broken, match=r"certificate is not trusted.*SPANLAN_ETCD_CA"):
        store.get("/k")
    store.close()


def test_a_client_without_certificate_is_told_to_show_one(locked: EtcdServer, authority: Authority):
    store = EtcdStore([locked.endpoint], ca=authority.certificate.read_bytes())

    with pytest.raises(Broken, match=r"TLS failed.*certificate.*SPANLAN_ETCD_CERT"):
        store.get("/k")
    store.close()


def test_a_client_without_tls_is_told_that_the_server_expects_it(locked: EtcdServer):
    store = EtcdStore([locked.endpoint])

    with pytest.raises(Broken, match=r"the server expects TLS.*etcds://"):
        store.get("/k")
    with pytest.raises(Broken, match="the server expects TLS"):
        next(iter(store.watch("/")))
    store.close()


def test_a_client_with_tls_is_told_that_the_server_does_not_speak_it(etcd: EtcdServer):
    store = EtcdStore([etcd.endpoint], tls=True)

    with pytest.raises(Broken, match=r"the server does not speak TLS.*etcd://"):
        store.get("/k")
    store.close()


def test_each_of_several_endpoints_is_checked_against_its_own_name(etcd_directory: Path, authority: Authority):
    """Trap 18: several addresses under one gRPC name are checked against the wrong certificate."""
    by_address = Tls(authority.issue("by-address"), authority.certificate)
    by_name = Tls(authority.issue("by-name", addresses="DNS:localhost"), authority.certificate)
    first = EtcdServer(Path(tempfile.mkdtemp(dir=etcd_directory)), tls=by_address)
    second = EtcdServer(Path(tempfile.mkdtemp(dir=etcd_directory)), tls=by_name)
    endpoints = [first.endpoint, f"localhost:{second.client_port}"]
    with first, second, etcd3.Client(endpoints, ca=authority.certificate.read_bytes()) as client:
        first.start()
        second.start()
        for stopped in (first, second):
            stopped.stop()
            assert client.status().version
            stopped.start()


# -- users and tokens, without TLS ---------------------------------------------------------------------------------


def test_a_user_needs_no_tls(with_users: EtcdServer):
    """Trap 17: gRPC's call credentials refuse to go over a connection without TLS."""
    with etcd3.Client([with_users.endpoint], user="spanlan", password=PASSWORD) as client:
        assert client.put(b"/mine/k", b"v")


def test_a_token_that_ended_with_the_server_is_renewed(with_users: EtcdServer):
    """Trap 16: simple tokens live in the server's memory."""
    store = EtcdStore([with_users.endpoint], root="/mine", user="spanlan", password=PASSWORD)
    lease = store.lease(30)
    with Followed(store.watch("/")) as followed:
        followed.wait_for(InSync)
        with_users.kill()
        with_users.start()

        assert store.commit([Absent("/k")], [Put("/k", b"v")]).succeeded
        followed.wait_for(Changes, 15)
    lease.keepalive()
    store.close()


def test_a_refused_token_is_renewed_once_for_every_kind_of_call(with_users: EtcdServer):
    """Trap 16: the same for a token that was not used for long, and for a changed auth store."""
    with etcd3.Client([with_users.endpoint], user="spanlan", password=PASSWORD) as client:
        lease = client.lease(30)
        _forge_token(client)
        assert client.put(b"/mine/k", b"v", lease=lease)
        _forge_token(client)
        assert lease.refresh() == 30
        _forge_token(client)
        assert client.get(b"/mine/k") is not None

        with_users.ctl("user", "add", "somebody:else", user=f"root:{ROOT_PASSWORD}")
        assert client.put(b"/mine/k", b"w")


def test_a_watch_that_was_refused_for_its_token_logs_in_and_stands(with_users: EtcdServer):
    """Trap 7: ``created`` and ``canceled`` at once, which other clients take for success."""
    with etcd3.Client([with_users.endpoint], user="spanlan", password=PASSWORD) as client:
        revision = client.put(b"/mine/k", b"v")
        _forge_token(client)

        with Followed(client.watch_prefix(b"/mine/", start_revision=revision)) as followed:
            assert followed.wait_for(etcd3.Events).revision == revision
            assert not any(isinstance(one, etcd3.Disconnected) for one in followed.seen)


def test_a_watch_that_is_forbidden_says_so(with_users: EtcdServer):
    """Trap 7: after a fresh login the refusal is meant."""
    with (
        etcd3.Client([with_users.endpoint], user="spanlan", password=PASSWORD) as client,
        client.watch_prefix(b"/theirs/") as watch,
        pytest.raises(etcd3.Denied, match="permission denied"),
    ):
        next(iter(watch))


@pytest.mark.parametrize(
    ("user", "password", "root"),
    [("spanlan", "wrong", "/mine"), ("nobody", PASSWORD, "/mine"), (None, None, "/mine"), ("spanlan", PASSWORD, "/x")],
    ids=["wrong password", "unknown user", "no user", "foreign prefix"],
)
def test_who_is_not_let_in_is_told_the_user_the_prefix_and_the_cure(with_users: EtcdServer, user, password, root):
    store = EtcdStore([with_users.endpoint], root=root, user=user, password=password)
    cure = rf"{user or 'a client without a user'}.*SPANLAN_ETCD_PASSWORD_FILE.*{root}/"

    with pytest.raises(Broken, match=cure) as refusal:
        store.get("/k")
    assert str(password) not in str(refusal.value)
    with pytest.raises(Broken, match=cure):
        store.commit([], [Put("/k", b"v")])
    with pytest.raises(Broken, match=cure):
        next(iter(store.watch("/")))
    store.close()


def test_a_user_is_not_needed_by_a_server_without_auth(etcd: EtcdServer):
    """So that an operator can switch auth on while daemons run with a user already."""
    with etcd3.Client([etcd.endpoint], user="spanlan", password=PASSWORD) as client:
        assert client.put(b"/k", b"v")


def test_auth_that_is_switched_on_later_is_noticed(fragile: EtcdServer):
    with etcd3.Client([fragile.endpoint], user="spanlan", password=PASSWORD) as client:
        client.put(b"/mine/k", b"v")
        _lock(fragile)

        assert client.put(b"/mine/k", b"w")
