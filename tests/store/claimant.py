"""A process that claims keys, for the tests: ``python -m store.claimant URL NAME KEY…``.

Says ``ready``, waits for a line, claims every key in an order of its own, and says which it got, as JSON.
"""

import json
import random
import sys

from spanlan.store.base import Absent, Put
from spanlan.store.locate import Credentials, open_store


def main() -> None:
    url, name, *keys = sys.argv[1:]
    store = open_store(url, credentials=Credentials())
    store.get("/connected")
    random.Random(name).shuffle(keys)  # noqa: S311 - no secret
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    won = [key for key in keys if store.commit([Absent(key)], [Put(key, name.encode())]).succeeded]
    store.close()
    sys.stdout.write(json.dumps(won))


if __name__ == "__main__":
    main()
