"""TFRecord rows to padded batches through tf.data: tfrecord_rows.py FILE [write ROWS.npz]"""

import sys

import numpy as np
import tensorflow as tf
from _rows import ROWS_A_STEP, SHUFFLED, report

ONE = tf.io.FixedLenFeature([], tf.int64)
FEATURES = {"user": ONE, "target": ONE, "history": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True)}


def write(rows):
    def numbers(values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    with tf.io.TFRecordWriter(sys.argv[1]) as file:
        for user, history, target in zip(rows["user"], rows["history"], rows["target"], strict=True):
            feature = {"user": numbers([user]), "history": numbers(history), "target": numbers([target])}
            file.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def batches():
    rows = tf.data.TFRecordDataset(sys.argv[1]).shuffle(SHUFFLED).batch(ROWS_A_STEP)
    return rows.map(lambda some: tf.io.parse_example(some, FEATURES)).prefetch(2)


if sys.argv[2:3] == ["write"]:
    write(np.load(sys.argv[3]))
else:
    report(batches)
