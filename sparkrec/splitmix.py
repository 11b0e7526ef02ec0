"""SplitMix64's step and finaliser (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).

Whoever draws decides how states are made of seeds and keys.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

#: Between the states of one sequence; odd, and nearest to 2⁶⁴ over the golden ratio.
STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def finalised(states: U64) -> U64:
    """A random number for each state, 64 bits; a bijection."""
    with np.errstate(over="ignore"):
        states = (states ^ (states >> np.uint64(30))) * _FIRST
        states = (states ^ (states >> np.uint64(27))) * _SECOND
        return states ^ (states >> np.uint64(31))
