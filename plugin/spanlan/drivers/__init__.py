"""What should be on this host, as pure functions from options and a view to a plan."""
