"""The words of spanlan: values without behaviour that every room may use.

``cluster`` holds what the store remembers, ``host`` what this host's kernel holds, ``view`` this host's picture of a
segment.  Nothing here does I/O, reads a clock or starts a thread.
"""
