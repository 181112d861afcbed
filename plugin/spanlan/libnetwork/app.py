"""The Flask application: one route per method, and what is common to all of them.

Its errors never leave as HTML: whatever goes wrong, dockerd gets JSON with ``Err`` and ``Error``.  It keeps no state
and knows no socket (``server`` does); what a request does is ``methods``, what an error becomes is ``replies``.
"""

import logging
import time
from collections.abc import Callable

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge

from spanlan.libnetwork import messages, replies
from spanlan.libnetwork.fields import Fields
from spanlan.libnetwork.methods import Method, all_methods
from spanlan.libnetwork.ports import IpamDriver, NetworkDriver, Observe
from spanlan.libnetwork.replies import Answer
from spanlan.libnetwork.workers import Workers

LIMIT = 8.0
"""Seconds in which every request is answered: well below the 15 s after which dockerd's own retries give up."""

LARGEST_BODY = 1 << 20
"""Bytes.  The largest recorded request has 579; one with every option and port that Docker allows stays far below."""

_log = logging.getLogger(__name__)


def create_app(
    driver: NetworkDriver,
    ipam: IpamDriver,
    *,
    limit: float = LIMIT,
    workers: Workers | None = None,
    observe: Observe | None = None,
) -> Flask:
    """The door of the two drivers as a WSGI application.

    ``limit``: seconds in which each request is answered, with an error if need be.  ``workers``: where handlers run;
    a pool of the usual size when left out.  ``observe`` is told of every answer.
    """
    app = Flask("spanlan.libnetwork", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    app.url_map.merge_slashes = False
    door = _Door(limit, workers or Workers(), observe)
    for name, method in all_methods(driver, ipam).items():
        app.add_url_rule(
            f"/{name}",
            endpoint=name,
            view_func=door.view(name, method),
            methods=["POST"],
            provide_automatic_options=False,
        )
    app.register_error_handler(Exception, door.failed)
    return app


class _Door:
    """What happens around every method."""

    def __init__(self, limit: float, workers: Workers, observe: Observe | None) -> None:
        self._limit = limit
        self._workers = workers
        self._observe = observe

    def view(self, name: str, method: Method) -> Callable[[], Response]:
        """The view function of one method."""

        def answer_request() -> Response:
            begun_at = time.monotonic()
            # A body that is too big raises here, and is answered by ``failed``.
            raw = request.get_data(cache=False)
            answer = self._answer(name, method, raw)
            return self._respond(name, answer, begun_at)

        return answer_request

    def failed(self, error: Exception) -> Response:
        """The answer where no method was reached, or its view ended in a way that it should not."""
        begun_at = time.monotonic()
        if not isinstance(error, HTTPException):
            return self._respond("unknown", replies.answer_error(request.path, error, removal=False), begun_at)
        status = error.code or 500
        if isinstance(error, NotFound):
            text = f"spanlan does not know the method {request.path}"
        elif isinstance(error, MethodNotAllowed):
            text = f"{request.path} must be sent with POST, not {request.method}"
        elif isinstance(error, RequestEntityTooLarge):
            text = f"the body of {request.path} is larger than {LARGEST_BODY} bytes"
        else:
            text = f"{request.path}: {error.description}"
        _log.warning("%s", text)
        response = self._respond("unknown", Answer(replies.complaint(text), "unknown", status), begun_at)
        if isinstance(error, MethodNotAllowed):
            response.headers["Allow"] = "POST"
        return response

    def _answer(self, name: str, method: Method, raw: bytes) -> Answer:
        try:
            body = messages.parse_body(raw) if method.reads_body else Fields({})
            if method.fixed:
                return Answer(method.answer(body))
            return Answer(self._workers.run(name, lambda: method.answer(body), self._limit))
        except Exception as error:  # noqa: BLE001 - the last place before dockerd
            return replies.answer_error(name, error, removal=method.removal)

    def _respond(self, name: str, answer: Answer, begun_at: float) -> Response:
        seconds = time.monotonic() - begun_at
        if self._observe is not None:
            try:
                self._observe(name, seconds, answer.outcome)
            except Exception:  # noqa: BLE001 - who counts requests must not be able to fail them
                _log.exception("the observer of %s failed", name)
        _log.debug("%s: %s in %.1f ms", name, answer.outcome, 1000 * seconds)
        return Response(replies.encode(answer.body), status=answer.status, content_type=messages.CONTENT_TYPE)
