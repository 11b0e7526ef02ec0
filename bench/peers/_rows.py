"""What the peers of loader.py share: two passes over all rows, the second timed, and a check on what came.

Seconds are of the process, all threads: a core that other programs use too gives the same number.
"""

import json
import time

ROWS_A_STEP, SHUFFLED = 1024, 10_000


def checked(users, history, targets):
    """Rows, Σ users, Σ items, Σ user · target (modulo 2^64) of a batch of arrays."""
    users, targets = users.astype("uint64"), targets.astype("uint64")
    items = int(history.astype("uint64").sum()) + int(targets.sum())
    return [len(users), int(users.sum()), items, int((users * targets).sum())]


def report(make):
    """``make()`` gives an iterable of batches, mappings to tensors; the last line that is printed."""
    for _ in range(2):
        started, waited, total = time.process_time(), 0.0, [0] * 4
        for batch in make():
            arrived = time.process_time()  # the check is not the loader's time
            found = checked(*(batch[name].numpy() for name in ("user", "history", "target")))
            total = [(a + b) % 2**64 for a, b in zip(total, found, strict=True)]
            waited += time.process_time() - arrived
        seconds = time.process_time() - started - waited
    print(json.dumps({"seconds": seconds, "check": total}))
