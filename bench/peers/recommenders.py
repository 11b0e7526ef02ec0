"""TensorFlow Recommenders' two-tower as its tutorial has it, with a history. Prints seconds and losses as JSON.

recommenders.py STEPS.npz USERS ITEMS WIDTH BATCH TEMPERATURE
"""

import json
import os
import sys
import time

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras

USERS, ITEMS, WIDTH, BATCH = (int(x) for x in sys.argv[2:6])
TEMPERATURE = float(sys.argv[6])


class TwoTower(tfrs.Model):
    def __init__(self):
        super().__init__()
        self.user, self.item, self.past = (tf_keras.layers.Embedding(n, WIDTH) for n in (USERS, ITEMS, ITEMS))
        self.task = tfrs.tasks.Retrieval(temperature=TEMPERATURE)

    def compute_loss(self, inputs, training=False):
        past = tf.reduce_mean(self.past(inputs["history"]), axis=1)
        users = tf.math.l2_normalize(self.user(inputs["users"]) + past, axis=1)
        items = tf.math.l2_normalize(self.item(inputs["targets"]), axis=1)
        return self.task(users, items, compute_metrics=False)


class Clock(tf_keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seconds, self.losses, self.last = [], [], 0.0

    def on_train_batch_begin(self, batch, logs=None):
        self.last = self.last or time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        self.seconds.append(now - self.last)
        self.losses.append(float(logs["loss"]) / BATCH)  # its loss is a sum over the batch
        self.last = now


data = np.load(sys.argv[1])
steps = {name: data[name] for name in ("users", "history", "targets")}
dataset = tf.data.Dataset.from_tensor_slices(steps).batch(BATCH).prefetch(2)
model = TwoTower()
model.compile(optimizer=tf_keras.optimizers.Adagrad(0.1))
clock = Clock()
model.fit(dataset, epochs=1, verbose=0, callbacks=[clock])
print(json.dumps({"seconds": clock.seconds, "losses": clock.losses}))
