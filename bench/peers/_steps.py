"""What the peers share: the data, the shape, and a clock at every step. Standard library and NumPy only."""

import json
import sys
import time

import numpy as np

USERS, ITEMS, WIDTH, BATCH = (int(x) for x in sys.argv[2:6])
TEMPERATURE = float(sys.argv[6])


def load():
    """users [n], history [n, 50], targets [n], as a dictionary of arrays."""
    data = np.load(sys.argv[1])
    return {name: data[name] for name in ("users", "history", "targets")}


def clock(callback):
    """A callback of some Keras that notes the seconds of every step and the loss that is logged after it."""

    class Clock(callback):
        def __init__(self):
            super().__init__()
            self.seconds, self.losses, self.last = [], [], 0.0

        def on_train_batch_begin(self, batch, logs=None):
            self.last = self.last or time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            now = time.perf_counter()
            self.seconds.append(now - self.last)
            self.losses.append(float(logs["loss"]))
            self.last = now

    return Clock()


def report(seconds, losses):
    """The last line that is printed."""
    print(json.dumps({"seconds": list(seconds), "losses": list(losses)}))
