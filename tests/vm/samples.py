"""What tests in a guest may do, for the tests of the guest itself to look at.  Never collected by its name."""

import os
import time


def test_that_passes() -> None:
    pass


def test_that_fails() -> None:
    answer = 41
    assert answer == 42, "the words of the failure"


def test_that_takes_the_guest_with_it() -> None:
    os._exit(9)


def test_that_hangs() -> None:
    time.sleep(600)
