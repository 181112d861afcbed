"""One call to the cluster: bounded in time, on an endpoint that answers, with a token that is valid.

What gRPC says when a call fails differs from release to release, so nothing is decided by its texts.  A call that did
not end with an answer may have been carried out; whether it may be sent again is for the caller to say (``resend``).
etcd's own texts are part of its API (``api/v3rpc/rpctypes``) and may be relied upon.
"""

import random
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

import grpc

from spanlan.store.etcd3.connections import Connection, Endpoints
from spanlan.store.etcd3.errors import (
    Closed,
    Compacted,
    Denied,
    EtcdError,
    Rejected,
    Unreachable,
    Untrusted,
)
from spanlan.store.etcd3.wire import messages

Metadata = tuple[tuple[str, str], ...]

# A member that has lost the others refuses at once instead of keeping us waiting, or feeding us nothing for ever.
REQUIRE_LEADER: Final[Metadata] = (("hasleader", "true"),)

_AWAY: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)
_STALE_TOKEN: Final = ("invalid auth token", "revision of auth store is old", "user name is empty")
_NOT_LET_IN: Final = (*_STALE_TOKEN, "authentication failed", "permission denied")
_AUTH_IS_OFF: Final = "authentication is not enabled"
_COMPACTED: Final = "required revision has been compacted"

_SHORTEST_ATTEMPT: Final = 0.3
_LONGEST_LOOK: Final = 1.0
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call or a stream ended without success."""

    code: grpc.StatusCode
    text: str

    @classmethod
    def of(cls, error: grpc.RpcError) -> "Failure":
        """Read gRPC's error, which is at the same time the call."""
        call: Any = error
        return cls(call.code(), call.details() or "")

    @property
    def away(self) -> bool:
        """The server did not answer; another one, or the same one later, may."""
        return self.code in _AWAY

    @property
    def token_is_stale(self) -> bool:
        """Logging in again may help."""
        return self.code is grpc.StatusCode.UNAUTHENTICATED or any(words in self.text for words in _STALE_TOKEN)

    @property
    def reason(self) -> str:
        """For people: the text without gRPC's preamble."""
        if self.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return "no answer in time"
        return self.text.rpartition("last error: ")[2] or self.code.name

    def as_error(self) -> EtcdError:
        """The error to raise for an answer that is a refusal."""
        if _COMPACTED in self.text:
            return Compacted()
        denied = self.code in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
        if denied or any(words in self.text for words in _NOT_LET_IN):
            return Denied(self.code.name, self.text)
        return Rejected(self.code.name, self.text)


class Budget:
    """The time one call may take, shared out over the endpoints so that one that hangs leaves some for the next."""

    def __init__(self, seconds: float, endpoints: int) -> None:
        self._ends_at = time.monotonic() + seconds
        self._endpoints = endpoints
        self._untried = endpoints
        self._pause = _FIRST_PAUSE

    @property
    def left(self) -> float:
        """Seconds."""
        return self._ends_at - time.monotonic()

    def share(self) -> float:
        """Seconds for the next attempt."""
        left = max(self.left, 0.01)
        return min(left, max(_SHORTEST_ATTEMPT, left / max(self._untried, 1)))

    def another(self) -> bool:
        """After a failed attempt: whether there is time for one more.  Waits a little once all have been tried."""
        self._untried -= 1
        if self._untried <= 0:
            self._untried = self._endpoints
            pause = self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - so that many clients do not come at once
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            if self.left <= pause:
                return False
            time.sleep(pause)
        return self.left > 0


class Login:
    """User and password, and the token they got.

    Simple tokens live in a server's memory: they end after minutes without use, and with the server.
    """

    def __init__(self, user: str, password: str) -> None:
        self.user = user
        self._password = password
        self._lock = threading.Lock()
        self._login = threading.Lock()
        self._token: str | None = None

    def token(self, connection: Connection, seconds: float) -> str:
        """The token, after logging in if there is none; empty if the server wants none.

        Raises grpc.RpcError like any call.
        """
        if self._token is not None:
            return self._token
        ends_at = time.monotonic() + seconds
        if not self._login.acquire(timeout=seconds):  # of many threads, one logs in
            raise _LoginTakesLong
        try:
            if self._token is None:
                self._token = self._log_in(connection, max(ends_at - time.monotonic(), 0.01))
            return self._token
        finally:
            self._login.release()

    def _log_in(self, connection: Connection, seconds: float) -> str:
        request = messages.AuthenticateRequest(name=self.user, password=self._password)
        try:
            return str(connection.call("Authenticate", request, timeout=seconds).token)
        except grpc.RpcError as error:
            if _AUTH_IS_OFF in Failure.of(error).text:
                return ""
            raise

    def forget(self, token: str | None) -> None:
        """This token was refused: log in anew next time, unless that has happened already."""
        with self._lock:
            if self._token == token:
                self._token = None


class _LoginTakesLong(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.DEADLINE_EXCEEDED

    def details(self) -> str:
        return "another thread's login takes long"


class _NoAnswerError(Exception):
    def __init__(self, failure: Failure, *, sent: bool) -> None:
        self.failure = failure
        self.sent = sent
        super().__init__(failure.text)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; ``resent`` if an earlier sending got no answer and may have been carried out."""

    message: Any
    resent: bool


class Caller:
    """Calls any procedure of the cluster."""

    def __init__(self, endpoints: Endpoints, login: Login | None, timeout: float) -> None:
        self.endpoints = endpoints
        self.login = login
        self.timeout = timeout

    def metadata(self, token: str) -> Metadata:
        """What goes along with a call.  The token is plain metadata: gRPC's call credentials insist on TLS."""
        return (*REQUIRE_LEADER, ("token", token)) if token else REQUIRE_LEADER

    def call(self, name: str, request: Any, *, timeout: float | None = None, resend: bool = True) -> Answer:
        """Call ``name`` on an endpoint that answers, within ``timeout`` seconds.

        Without ``resend``, a request that may have been carried out is not sent again.  Raises Unreachable, Rejected,
        Denied, Compacted, Closed.
        """
        budget = Budget(self.timeout if timeout is None else timeout, len(self.endpoints))
        if not resend:
            self._find_one_that_answers(budget)
        return self._call(name, request, budget, resend=resend)

    def _call(self, name: str, request: Any, budget: Budget, *, resend: bool) -> Answer:
        reasons: dict[str, str] = {}
        untrusted: dict[str, str] = {}
        maybe_done = False
        while True:
            connection = self.endpoints.current()
            try:
                message = self._ask(connection, name, request, budget.share())
            except _NoAnswerError as error:
                self.endpoints.failed(connection)
                if connection.endpoint not in reasons:
                    untrusted |= self.tls_trouble(connection, error.failure, budget.left)
                reasons[connection.endpoint] = error.failure.reason
                maybe_done = maybe_done or error.sent
                if len(untrusted) == len(self.endpoints):
                    raise Untrusted(untrusted) from error
                if (error.sent and not resend) or not budget.another():
                    kind = Untrusted if untrusted else Unreachable
                    raise kind(reasons | untrusted, outcome_unknown=maybe_done) from error
            else:
                connection.proven = True
                return Answer(message, maybe_done)

    def tls_trouble(self, connection: Connection, failure: Failure, seconds: float) -> dict[str, str]:
        """Why TLS with this endpoint fails, if that is why a call failed: ``{endpoint: reason}``, or nothing."""
        answered = failure.text.startswith("etcdserver: ")
        if answered or failure.code is not grpc.StatusCode.UNAVAILABLE or seconds <= 0:
            return {}
        trouble = self.endpoints.trust.trouble(connection.endpoint, min(seconds, _LONGEST_LOOK))
        return {connection.endpoint: trouble} if trouble else {}

    def _ask(self, connection: Connection, name: str, request: Any, seconds: float) -> Any:
        """Ask one endpoint; twice, if it refused our token the first time.  Raises _NoAnswerError, Rejected, Closed."""
        renewed = False
        while True:
            token, sent = "", False
            try:
                if self.login:
                    token = self.login.token(connection, seconds)
                sent = True
                return connection.call(name, request, timeout=seconds, metadata=self.metadata(token))
            except grpc.RpcError as error:
                failure = Failure.of(error)
                if self.endpoints.closed:
                    raise Closed from error
                if failure.away:
                    raise _NoAnswerError(failure, sent=sent) from error
                if renewed or not (self.login and sent and failure.token_is_stale):
                    connection.proven = True
                    raise failure.as_error() from error
                renewed = True
                self.login.forget(token)
            except ValueError as error:  # gRPC's way to say that the channel is closed
                if self.endpoints.closed:
                    raise Closed from error
                raise

    def _find_one_that_answers(self, budget: Budget) -> None:
        """Before a request that must not be sent twice: make sure that it goes to a server that is there.

        So a member that has been down for a week does not turn a write into a riddle.
        """
        if self.endpoints.current().proven:
            return
        try:
            self._call("Range", messages.RangeRequest(key=b"\0", count_only=True), budget, resend=True)
        except Unreachable as error:
            error.outcome_unknown = False  # only the question was sent
            raise
        except Rejected:
            return  # an answer, too
