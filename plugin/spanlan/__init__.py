"""Spanlan: a LAN that spans Docker hosts.

A libnetwork remote driver and IPAM driver for plain Docker engines.  The rooms and the direction in which they may
import each other are listed in ``pyproject.toml`` under ``tool.importlinter``.
"""

__version__ = "0.1.0"
