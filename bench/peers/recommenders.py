"""TensorFlow Recommenders' two-tower as its tutorial has it, with a history. Prints seconds and losses as JSON.

recommenders.py STEPS.npz USERS ITEMS WIDTH BATCH TEMPERATURE
"""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras
from _steps import BATCH, ITEMS, TEMPERATURE, USERS, WIDTH, clock, load, report


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


dataset = tf.data.Dataset.from_tensor_slices(load()).batch(BATCH).prefetch(2)
model = TwoTower()
model.compile(optimizer=tf_keras.optimizers.Adagrad(0.1))
watch = clock(tf_keras.callbacks.Callback)
model.fit(dataset, epochs=1, verbose=0, callbacks=[watch])
report(watch.seconds, [loss / BATCH for loss in watch.losses])  # its loss is a sum over the batch
