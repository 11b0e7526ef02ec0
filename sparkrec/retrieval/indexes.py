"""Indexes of faiss for an approximate search: graphs (HNSW), inverted files (IVF), codes of few bytes (PQ, SQ8 = int8).

An index only proposes items. The kernel filters them, scores them exactly and orders them, and searches exactly for
whoever is left with fewer than k: so a list can miss items, but never hold a wrong score, a wrong order, an item that
the user is not to be offered, or fewer items than there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparkrec.errors import ConfigError
from sparkrec.retrieval import kernel
from sparkrec.retrieval.kernel import F32, I32, Csr, Packed

if TYPE_CHECKING:
    from sparkrec.config.recommend import Faiss

_SAMPLE = 1 << 17  # vectors that an index learns from
_BLOCK = 1 << 16  # vectors added at a time
_SEEN = 0.9  # of the users of a block: so much more is asked for that as many have their seen items covered


@dataclass(frozen=True)
class Index:
    """An index over the rows of a :class:`kernel.Packed` that hold an item, in their order.

    candidates : times k, so many items are proposed for each user, and besides what nearly all of them have seen.
    """

    faiss: Any
    candidates: float

    def search(
        self, part: Packed, users: F32, k: int, exclude: Csr | None, allowed: NDArray[np.bool_] | None
    ) -> tuple[I32, F32]:
        """As :func:`kernel.search`."""
        items = part.order[part.order >= 0]
        if not len(items):
            return kernel.search(part, users, k, exclude, allowed)
        met = 0 if exclude is None else int(np.quantile(np.diff(exclude[0]), _SEEN))
        size = min(int(k * self.candidates) + met, len(items))
        with _alone():
            _, found = self.faiss.search(np.ascontiguousarray(users), size)
        proposed = np.where(found >= 0, items[found], -1)
        return kernel.search(part, users, k, exclude, allowed, proposed=proposed)


def write(vectors: F32, items: I32, how: Faiss, file: Path) -> None:
    """Builds the index over these ``items`` (rows of ``vectors``, ``[m, d]``), the same one every time.

    Raises
    ------
    ConfigError
        faiss does not know such an index, or cannot make it of vectors of this width or of so few.
    """
    import faiss

    random = np.random.default_rng(0)
    sample = np.sort(random.choice(items, min(len(items), _SAMPLE), replace=False))
    with _alone():  # threads that build a graph together build another one each time
        try:
            index = faiss.index_factory(vectors.shape[1], how.index, faiss.METRIC_INNER_PRODUCT)
            _tuned(index, how)
            if len(items):
                index.train(np.ascontiguousarray(vectors[sample]))
            for start in range(0, len(items), _BLOCK):
                index.add(np.ascontiguousarray(vectors[items[start : start + _BLOCK]]))
        except RuntimeError as error:
            raise ConfigError(
                f"faiss cannot build recommend.faiss.index '{how.index}' with parameters '{how.parameters}' over "
                f"{len(items):,} vectors of width {vectors.shape[1]}: {str(error).rpartition(': ')[2]}. Name another "
                "index, or set recommend.search: exact."
            ) from error
        faiss.write_index(index, str(file))


def read(file: str, how: Faiss) -> Index:
    """The index on this machine, its pages shared with others who map it."""
    import faiss

    index = faiss.read_index(file, faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY)
    _tuned(index, how)
    return Index(index, how.candidates)


def _tuned(index: Any, how: Faiss) -> None:
    import faiss

    if how.parameters:
        words: Any = how.parameters  # the stub says that it is a number
        faiss.ParameterSpace().set_index_parameters(index, words)


@contextmanager
def _alone() -> Iterator[None]:
    """faiss with one thread: a task of Spark has one core."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
