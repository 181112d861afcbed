"""Tests of the lab world use the labs of ``lab.fixtures``."""

from lab.fixtures import clean_lab, lab, lab_logs, make_lab, no_ruins, raise_lab

pytest_runtest_makereport = lab_logs

__all__ = ["clean_lab", "lab", "make_lab", "no_ruins", "pytest_runtest_makereport", "raise_lab"]
