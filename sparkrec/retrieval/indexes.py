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
from sparkrec.retrieval.csr import take
from sparkrec.retrieval.kernel import F32, I32, Csr, Packed

if TYPE_CHECKING:
    from sparkrec.config.recommend import Faiss

_SAMPLE = 1 << 20  # vectors that an index learns from: it says itself if it wants fewer
_BLOCK = 1 << 16  # vectors added at a time
_LEAST = 4  # an index is asked for at most one in so many items: who needs more is searched for exactly


@dataclass(frozen=True)
class Index:
    """An index over the ``items`` of a :class:`kernel.Packed`, in the order of its rows.

    candidates : times k, so many items are proposed for each user, and as many again as they are not to be offered.
    """

    faiss: Any
    items: I32
    candidates: float

    def search(
        self, part: Packed, users: F32, k: int, exclude: Csr | None, allowed: NDArray[np.bool_] | None
    ) -> tuple[I32, F32]:
        """As :func:`kernel.search`; what a user gets does not depend on who else is asked for."""
        indices, scores = np.empty((len(users), k), np.int32), np.empty((len(users), k), np.float32)
        met = np.zeros(len(users)) if exclude is None else np.diff(exclude[0]).astype(np.float64)
        sizes = _steps(np.full(len(users), self.candidates * k, np.float64) + met)
        sizes[sizes * _LEAST > len(self.items)] = 0
        for size in np.unique(sizes):
            rows = np.flatnonzero(sizes == size)
            own = None if exclude is None else take(exclude, rows)
            proposed = self._proposed(users[rows], int(size)) if size else None
            indices[rows], scores[rows] = kernel.search(part, users[rows], k, own, allowed, proposed=proposed)
        return indices, scores

    def _proposed(self, users: F32, size: int) -> I32:
        """``[n, size]``; -1 where the index finds no more."""
        with _one_thread(), _one_by_one():
            _, found = self.faiss.search(np.ascontiguousarray(users), size)
        return np.where(found >= 0, self.items[found], np.int32(-1))


def write(vectors: F32, items: I32, how: Faiss, file: Path) -> None:
    """Builds the index over these ``items`` (rows of ``vectors``, ``[m, d]``), the same one every time.

    Raises
    ------
    ConfigError
        faiss does not know such an index, or cannot make it of vectors of this width or of so few.
    """
    import faiss

    index, random = _empty(vectors.shape[1], how), np.random.default_rng(0)
    sample = np.sort(random.choice(items, min(len(items), _SAMPLE), replace=False))
    with _one_thread():  # so that it cannot depend on how many there are
        try:
            if len(items):
                index.train(np.ascontiguousarray(vectors[sample]))
            for start in range(0, len(items), _BLOCK):
                index.add(np.ascontiguousarray(vectors[items[start : start + _BLOCK]]))
        except RuntimeError as error:
            raise _unfit(how, f"{len(items):,} vectors", vectors.shape[1], error) from error
        faiss.write_index(index, str(file))


def read(file: str, part: Packed, how: Faiss) -> Index:
    """The index of a part on this machine, its pages shared with others who map it."""
    import faiss

    index = faiss.read_index(file, faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY)
    _tuned(index, how)
    return Index(index, part.order[part.order >= 0], how.candidates)


def check(width: int, how: Faiss) -> None:
    """That faiss knows such an index of vectors of this width.

    Raises
    ------
    ConfigError
        It does not.
    """
    _empty(width, how)


def _empty(width: int, how: Faiss) -> Any:
    import faiss

    try:
        index = faiss.index_factory(width, how.index, faiss.METRIC_INNER_PRODUCT)
        _tuned(index, how)
    except RuntimeError as error:
        raise _unfit(how, "vectors", width, error) from error
    return index


def _unfit(how: Faiss, what: str, width: int, error: RuntimeError) -> ConfigError:
    return ConfigError(
        f"faiss cannot make recommend.faiss.index '{how.index}' with parameters '{how.parameters}' of {what} of width "
        f"{width}: {str(error).rpartition(': ')[2]}. Name another index, or set recommend.search: exact."
    )


def _tuned(index: Any, how: Faiss) -> None:
    import faiss

    if how.parameters:
        words: Any = how.parameters  # the stub says that it is a number
        faiss.ParameterSpace().set_index_parameters(index, words)


def _steps(sizes: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rounded up to powers of √2: users of one size are asked for together."""
    return np.ceil(2 ** (np.ceil(2 * np.log2(np.maximum(sizes, 1))) / 2)).astype(np.int64)


@contextmanager
def _one_thread() -> Iterator[None]:
    """A task of Spark has one core."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


@contextmanager
def _one_by_one() -> Iterator[None]:
    """Without matrix products, whose sums are rounded in an order that depends on how many users there are."""
    import faiss

    many = faiss.cvar.distance_compute_blas_threshold
    faiss.cvar.distance_compute_blas_threshold = 1 << 30
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = many
