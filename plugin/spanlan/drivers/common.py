"""What drivers of every mode agree on: the names of the containers' links, and that a segment has one mode."""

import hashlib

from spanlan.errors import Refuse
from spanlan.model.cluster import Segment


def digest(text: str, length: int = 10) -> str:
    """So many hexadecimal digits (at most 10) that stand for a text which is too long for the name of a link."""
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()[:length]


def child_name(endpoint_id: str) -> str:
    """Name of an endpoint's link while it is in the host's namespace: 15 bytes, the most that Linux takes."""
    return f"sle-{endpoint_id[:11]}"


def child_alias(endpoint_id: str) -> str:
    """The mark by which a daemon without memory knows an endpoint's link as ours."""
    return f"spanlan endpoint={endpoint_id}"


def refuse_other_mode(mode: str, segment: Segment) -> None:
    """Raise Refuse if the segment is of another mode than the network asks for."""
    if segment.mode != mode:
        raise Refuse(
            f"option mode={mode}: segment {segment.name} has mode {segment.mode}; give -o mode={segment.mode}, or "
            "choose another segment with -o segment=NAME"
        )
