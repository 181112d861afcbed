"""The errors of spanlan, few and named by what the caller does next.

    SpanlanError
     ├── Refuse    the caller's mistake: change the request, then ask again
     ├── Retry     not now: the same request may succeed later, unchanged
     ├── Gone      what was asked for is not there (any more): nothing is left to do
     └── Broken    our mistake, or this machine's: a person must look

Every message names the thing that was tried, the option or value at fault, and the cure.  The one place that turns an
error into a reply for dockerd is ``libnetwork/replies.py``; the command line turns it into an exit code in ``cli``.
"""


class SpanlanError(Exception):
    """Base of all errors that spanlan raises on purpose."""


class Refuse(SpanlanError):  # noqa: N818 - named by what the caller does next, not "...Error"
    """The request cannot be granted as it stands; its sender must change it."""


class Retry(SpanlanError):  # noqa: N818
    """The request could not be carried out now (store away, deadline spent); it may be sent again unchanged."""


class Gone(SpanlanError):  # noqa: N818
    """The object does not exist, or no longer; for a removal this is success."""


class Broken(SpanlanError):  # noqa: N818
    """Something that must hold does not: a bug of ours, or a machine that lacks what spanlan needs."""
