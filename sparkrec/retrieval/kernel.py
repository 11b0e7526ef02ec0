"""The native kernel of the similarity join: the packed form of an item matrix, and the search in it.

``native/scan.cpp`` is built when the package is installed and loaded here; it says how the search works. What a CPU
has for products of bfloat16 decides the unit that does them, never the result.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparkrec.errors import ConfigError

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
#: Item indices of user i: ``indices[indptr[i]:indptr[i + 1]]``, in any order.
Csr = tuple[NDArray[np.integer], NDArray[np.integer]]
#: Worst first, numbered as in ``scan.cpp``: float32 sums, those with AVX2, bfloat16 pairs of AVX-512, tiles of AMX.
UNITS = ("generic", "avx2", "avx512_bf16", "amx_bf16")
#: Set this to one of :data:`UNITS` to have that one and no other.
VARIABLE = "SPARKREC_RETRIEVAL_UNIT"

_TILE = 32  # items: rows are filled up to whole tiles, widths to whole registers
_CACHE = 512 << 10  # bytes of one block of items


@dataclass(frozen=True)
class Packed:
    """An item matrix as the search reads it. ``vectors`` and ``rows`` may be memory-mapped.

    Attributes
    ----------
    vectors
        float32 ``[m, d]`` as they came, for the exact scores.
    rows
        ``[r, w]``: those that may be offered, in bfloat16 (as uint16), the longest first, in whole tiles.
    order
        int32 ``[r]``: the item of each row; -1 where the last tile is only filled up.
    sizes
        float32 ``[3, blocks]``: the largest ‖v‖, ‖v'‖ and ‖v − v'‖ in each block, v' being v in bfloat16.
    """

    vectors: F32
    rows: NDArray[np.uint16]
    order: I32
    sizes: F32


def width_of(depth: int) -> int:
    """The width of the rows for vectors of this width."""
    return max(1, -(-depth // _TILE)) * _TILE


def block_of(width: int) -> int:
    """Rows in one block: whole tiles, and together they fit the second-level cache."""
    return max(1, _CACHE // (2 * width * _TILE)) * _TILE


def ordered(norms: NDArray[np.floating], allowed: NDArray[np.bool_] | None = None) -> I32:
    """The order of the rows: items that may be offered, the longest vectors first, then whole tiles."""
    order = np.argsort(-norms, kind="stable").astype(np.int32)
    if allowed is not None:
        order = order[allowed[order]]
    return np.concatenate([order, np.full(-len(order) % _TILE, -1, np.int32)])


def pack(vectors: F32, norms: NDArray[np.floating], allowed: NDArray[np.bool_] | None = None,
         place: Callable[[tuple[int, int]], NDArray[np.uint16]] | None = None) -> Packed:  # fmt: skip
    """The packed form of ``vectors``; ``place`` gives the memory for its rows, such as a file's."""
    vectors = np.ascontiguousarray(vectors, np.float32)
    depth = vectors.shape[1]
    width = width_of(depth)
    block, order = block_of(width), ordered(norms, allowed)
    shape = len(order), width
    rows = np.empty(shape, np.uint16) if place is None else place(shape)
    sizes = np.zeros((3, -(-len(order) // block)), np.float32)
    _library().sparkrec_pack(
        _of(vectors), depth, width, _of(order), 0, len(order), block, _of(rows), *(_of(size) for size in sizes)
    )
    return Packed(vectors, rows, order, sizes)


def search(items: Packed, users: F32, k: int, exclude: Csr | None, unit: str | None = None) -> tuple[I32, F32]:
    """The ``k`` best items of each user, ``[n, k]`` each: see :func:`sparkrec.retrieval.topk.top_k`."""
    library, number = _library(), UNITS.index(unit or best_unit())
    users = np.ascontiguousarray(users, np.float32)
    n = len(users)
    indices, scores = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    indptr = excluded = None
    if exclude is not None:
        indptr, excluded = (np.ascontiguousarray(part, kind) for part, kind in zip(exclude, (np.int64, np.int32)))
    depth, width = users.shape[1], items.rows.shape[1]
    catalogue = _Catalogue(
        _of(items.rows), _of(items.order), *(_of(size) for size in items.sizes), _of(items.vectors),
        len(items.rows), len(items.vectors), block_of(width), width, depth,
    )  # fmt: skip
    failed = library.sparkrec_search(
        number, ctypes.byref(catalogue), _of(users), n, k, _of(indptr), _of(excluded), _of(indices), _of(scores)
    )
    if failed:
        raise MemoryError("The search of the similarity join found not enough memory for its candidates.")
    return indices, scores


def units() -> tuple[str, ...]:
    """What this CPU, and the system on it, can use; the best last."""
    mask = _library().sparkrec_units()
    return tuple(name for number, name in enumerate(UNITS) if mask >> number & 1)


def best_unit() -> str:
    """The unit that searches use, unless :data:`VARIABLE` names another."""
    wanted, known = os.environ.get(VARIABLE), units()
    if wanted is None:
        return known[-1]
    if wanted not in known:
        raise ConfigError(f"{VARIABLE} asks for '{wanted}', and this machine has {', '.join(known)}. Unset it.")
    return wanted


class _Catalogue(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("packed", "order", "norms", "rounded", "residuals", "vectors")),
        *((name, ctypes.c_int64) for name in ("rows", "items", "block")),
        *((name, ctypes.c_int32) for name in ("width", "depth")),
    )


def _of(array: NDArray[Any] | None) -> int | None:
    """The address of a contiguous array."""
    return None if array is None else array.ctypes.data


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    file = Path(__file__).with_name("_scan" + EXTENSION_SUFFIXES[0])
    if not file.exists():
        raise ConfigError(
            "The native kernel of the similarity join is not built. Type: make setup   (or, in a checkout of your own: "
            "python setup.py build_ext --inplace)"
        )
    library = ctypes.CDLL(str(file))
    pointer, i32, i64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    library.sparkrec_units.restype = i32
    library.sparkrec_pack.argtypes = [pointer, i32, i32, pointer, i64, i64, i64, *[pointer] * 4]
    library.sparkrec_pack.restype = None
    library.sparkrec_search.argtypes = [i32, pointer, pointer, i64, i32, *[pointer] * 4]
    library.sparkrec_search.restype = i32
    return library
