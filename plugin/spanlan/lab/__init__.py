"""Several hosts on one machine, each with an engine and a daemon of its own."""
