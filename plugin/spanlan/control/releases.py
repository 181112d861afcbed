"""Releases of pools and addresses, written down as debts and read back."""

from spanlan.control.records import Debt
from spanlan.model.address import ip_address
from spanlan.model.pool import Release


def releasing(release: Release) -> Debt:
    """The debt of a release, with all that keeps it from touching a newer claim when it is paid late."""
    debt = {"what": "release", "pool": release.pool_id}
    if release.address is not None:
        debt["address"] = str(release.address)
    if release.claim is not None:
        debt["claim"] = release.claim
    return debt


def release_of(debt: Debt) -> Release:
    """The release that :func:`releasing` wrote down."""
    address = debt.get("address")
    return Release(debt["pool"], None if address is None else ip_address(address), debt.get("claim"))
