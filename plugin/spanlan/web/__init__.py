"""The door for people and monitors: health, metrics and a status page over HTTP.

It shows what it is given and reaches for nothing: :class:`spanlan.web.server.WebServer` gets a function that returns
the status, and the registry of the metrics.
"""
