"""The two-tower that a user of Keras would write: embeddings, ``compile``, ``fit``. Prints seconds and losses as JSON.

keras_fit.py STEPS.npz USERS ITEMS WIDTH BATCH TEMPERATURE
"""

import keras
import numpy as np
import tensorflow as tf
from _steps import BATCH, ITEMS, TEMPERATURE, USERS, WIDTH, clock, load, report


class TwoTower(keras.Model):
    def __init__(self):
        super().__init__()
        self.user, self.item, self.past = (keras.layers.Embedding(n, WIDTH) for n in (USERS, ITEMS, ITEMS))

    def call(self, inputs):
        past = keras.ops.mean(self.past(inputs["history"]), axis=1)
        users = keras.ops.normalize(self.user(inputs["users"]) + past)
        items = keras.ops.normalize(self.item(inputs["targets"]))
        return keras.ops.matmul(users, keras.ops.transpose(items)) / TEMPERATURE


steps = load()
labels = np.arange(len(steps["users"]), dtype=np.int32) % BATCH
dataset = tf.data.Dataset.from_tensor_slices((steps, labels)).batch(BATCH).prefetch(2)
model = TwoTower()
model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
watch = clock(keras.callbacks.Callback)
model.fit(dataset, epochs=1, verbose=0, callbacks=[watch])
# fit logs the mean since the epoch's start
means = np.asarray(watch.losses) * np.arange(1, len(watch.losses) + 1)
report(watch.seconds, np.diff(means, prepend=0))
