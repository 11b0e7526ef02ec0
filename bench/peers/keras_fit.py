"""The two-tower that a user of Keras would write: embeddings, ``compile``, ``fit``. Prints seconds and losses as JSON.

keras_fit.py STEPS.npz USERS ITEMS WIDTH BATCH TEMPERATURE
"""

import json
import sys
import time

import keras
import numpy as np
import tensorflow as tf

USERS, ITEMS, WIDTH, BATCH = (int(x) for x in sys.argv[2:6])
TEMPERATURE = float(sys.argv[6])


class TwoTower(keras.Model):
    def __init__(self):
        super().__init__()
        self.user, self.item, self.past = (keras.layers.Embedding(n, WIDTH) for n in (USERS, ITEMS, ITEMS))

    def call(self, inputs):
        past = keras.ops.mean(self.past(inputs["history"]), axis=1)
        users = keras.ops.normalize(self.user(inputs["users"]) + past)
        items = keras.ops.normalize(self.item(inputs["targets"]))
        return keras.ops.matmul(users, keras.ops.transpose(items)) / TEMPERATURE


class Clock(keras.callbacks.Callback):
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


data = np.load(sys.argv[1])
steps = {name: data[name] for name in ("users", "history", "targets")}
labels = np.arange(len(steps["users"]), dtype=np.int32) % BATCH
dataset = tf.data.Dataset.from_tensor_slices((steps, labels)).batch(BATCH).prefetch(2)
model = TwoTower()
model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
clock = Clock()
model.fit(dataset, epochs=1, verbose=0, callbacks=[clock])
# fit logs the mean since the epoch's start
means = np.asarray(clock.losses) * np.arange(1, len(clock.losses) + 1)
print(json.dumps({"seconds": clock.seconds, "losses": np.diff(means, prepend=0).tolist()}))
