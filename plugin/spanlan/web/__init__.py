"""The door for people and monitors: health and metrics over HTTP."""
