"""A sentence encoder that a person can check: how long a text is, and how many e's it has."""

import numpy as np


def embed(texts: list[str]) -> np.ndarray:
    return np.array([[len(line), line.count("e")] for line in texts], float)
