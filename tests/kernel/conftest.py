"""Kernel tests run inside a network namespace of their own, on the real kernel."""

from namespaces import namespace, new_namespace

__all__ = ["namespace", "new_namespace"]
