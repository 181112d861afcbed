"""What the cluster remembers.

``base`` is the contract, ``sqlite`` and ``etcd`` keep it, ``keys`` and ``codec`` spell it.  The store decides nothing:
it compares, sets, lists and watches.
"""
