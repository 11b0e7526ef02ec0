"""How a catalogue is searched, from its size and the memory that there is for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparkrec.retrieval.kernel import TILE, width_of

if TYPE_CHECKING:
    from sparkrec.config.recommend import Faiss


@dataclass(frozen=True)
class Plan:
    """``parts``: in how many the items come into memory. ``cells``, ``probes``: of each part; 0: there are none.

    ``index``: of each part; None: none. With neither the search is exact.
    """

    items: int
    width: int
    parts: int
    cells: int
    probes: int
    index: Faiss | None = None

    @property
    def megabytes(self) -> float:
        """Of all parts."""
        return self.items * item_bytes(self.width, self.exact) / 2**20

    @property
    def exact(self) -> bool:
        return not self.probes and self.index is None

    @property
    def how(self) -> str:
        """Of an approximate search, for people."""
        if self.index is None:
            return f"{self.probes} of {self.cells} cells"
        tuned = f" with {self.index.parameters}" if self.index.parameters else ""
        return f"faiss's {self.index.index}{tuned}, {self.index.candidates:g} × k candidates"

    @property
    def effort(self) -> str:
        """The settings that let an approximate search find more."""
        return "recommend.probes" if self.index is None else "recommend.faiss.candidates or what its parameters say"

    def __str__(self) -> str:
        """For people."""
        where = "whole" if self.parts == 1 else f"in {self.parts} parts, one after the other"
        how = "exact" if self.exact else f"approximate: {self.how}"
        return f"{self.items:,} items of width {self.width}, {self.megabytes:,.0f} MB: {where}, {how}"


def item_bytes(width: int, exact: bool) -> int:
    """Of one item on a machine that searches: float32 for its score, for the first look bfloat16 and in an exact search
    bytes, its place in the order."""
    return 4 * width + (3 if exact else 2) * width_of(width) + 4


def plan(items: int, width: int, memory_mb: float, probes: int = 0, index: Faiss | None = None) -> Plan:
    """As few parts as fit the memory; with ``probes``, four times as many cells in each as its items' square root."""
    exact = not probes and index is None
    parts = max(1, -(-items * item_bytes(width, exact) // int(memory_mb * 2**20)))
    inside = items // parts
    cells = min(4 * math.isqrt(inside), inside // (2 * TILE)) if probes else 0
    return Plan(items, width, parts, cells, min(probes, cells), index)
