"""Several hosts on one machine, each with an engine and a daemon of its own.

``Lab`` in ``lab.py`` is the way in; ``host.py`` says what a host is made of, ``removal.py`` how all of it is found
again.  Nothing here knows what the daemons do: they are started as the ``spanlan`` command, and reached through Docker.
"""

from spanlan.lab.image import NAME as IMAGE
from spanlan.lab.lab import Lab

__all__ = ["IMAGE", "Lab"]
