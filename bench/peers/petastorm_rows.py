"""Parquet rows to batches through petastorm's batch reader and its tf.data: petastorm_rows.py FOLDER"""

import logging
import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

from _rows import ROWS_A_STEP, SHUFFLED, report
from petastorm import make_batch_reader
from petastorm.tf_utils import make_petastorm_dataset


def batches():
    url = Path(sys.argv[1]).absolute().as_uri()
    with make_batch_reader(url, num_epochs=1, workers_count=1, reader_pool_type="thread") as reader:
        rows = make_petastorm_dataset(reader).unbatch().shuffle(SHUFFLED).batch(ROWS_A_STEP).prefetch(2)
        for batch in rows:
            yield batch._asdict()


report(batches)
