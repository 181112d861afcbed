"""The door to dockerd: NetworkDriver and IpamDriver over HTTP on a Unix socket."""
