"""Randomness as pure functions of (seed, epoch, user, …): the same on any number of ranks, and after a resume."""

from __future__ import annotations

import numpy as np

from sparkrec import splitmix


def mix(*parts: np.ndarray | int) -> np.ndarray:
    """A 64-bit hash of the parts, element by element; integers broadcast.

    SplitMix64's finaliser, applied after each part is added.
    """
    state = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            state = (state ^ np.asarray(part).astype(np.uint64)) * splitmix.STEP + splitmix.STEP
            state = splitmix.finalised(state)
    return np.asarray(state)


def uniform(*parts: np.ndarray | int) -> np.ndarray:
    """A number in [0, 1) for each element of the parts."""
    return (mix(*parts) >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def positions(index: np.ndarray, n: int, seed: int, epoch: int) -> np.ndarray:
    """Where each index of 0 … n-1 stands in the epoch's random order: a permutation that nobody has to hold.

    A four-round Feistel network on the smallest even number of bits that holds n, walked until the value is
    below n (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Each rank computes it for its
    own users only; int64, the shape of ``index``.
    """
    half = np.uint64(max(1, ((max(n - 1, 1)).bit_length() + 1) // 2))
    low = (np.uint64(1) << half) - np.uint64(1)
    value = np.asarray(index).astype(np.uint64)
    outside = np.ones(value.shape, bool)
    while outside.any():
        left, right = value[outside] >> half, value[outside] & low
        for round_ in range(4):
            left, right = right, left ^ (mix(right, seed, epoch, round_) & low)
        value[outside] = (left << half) | right
        outside = value >= np.uint64(n)
    return value.astype(np.int64)


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """start, start + 1, … (length numbers) for each pair, one after the other; int64."""
    lengths = np.asarray(lengths, np.int64)
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(np.asarray(starts, np.int64) - (ends - lengths), lengths)
