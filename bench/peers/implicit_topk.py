"""implicit's recommend with its filter on: implicit_topk.py DATA K OUT. Prints users a second; OUT gets the lists."""

from __future__ import annotations

import sys
import time

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix

data = np.load(sys.argv[1])
users, items, indptr, seen = (data[name] for name in ("users", "items", "indptr", "seen"))
model = AlternatingLeastSquares(factors=users.shape[1])
model.user_factors, model.item_factors = users, items
liked = csr_matrix((np.ones(len(seen), np.float32), seen, indptr), shape=(len(users), len(items)))
everyone = np.arange(len(users))
start = time.perf_counter()
found, _ = model.recommend(everyone, liked, N=int(sys.argv[2]), filter_already_liked_items=True)
print(len(users) / (time.perf_counter() - start))
np.save(sys.argv[3], found)
