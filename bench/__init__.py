"""How fast spanlan is, measured on the real thing: ``make bench``, or ``python -m bench --help``.

Every figure stands beside a limit that was measured in the same run, alternating with it, so that what is read is a
ratio and not the mood of a machine.  Nothing here passes or fails by a time.  docs/measurements.md holds a run.
"""
