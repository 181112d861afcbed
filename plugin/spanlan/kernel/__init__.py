"""How: the only room that speaks netlink.  Wanted, found, difference, apply."""
