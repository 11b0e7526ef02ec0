"""The native kernel of the similarity join: the packed form of an item matrix, and the search in it.

``native/scan.cpp`` is built when the package is installed and loaded here; it says how the search works. What a CPU
has for products of bytes and of bfloat16 decides the unit that does them, never the result.
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
I64 = NDArray[np.int64]
#: Item indices of user i: ``indices[indptr[i]:indptr[i + 1]]``, in any order.
Csr = tuple[NDArray[np.integer], NDArray[np.integer]]
#: Gives the memory for a field: its name, shape and type.
Place = Callable[[str, tuple[int, int], type[np.generic]], NDArray[Any]]
#: Worst first, numbered as in ``scan.cpp``: float32 sums, those with AVX2, bytes with AVX-512, bfloat16 pairs beside
#: them, tiles of AMX.
UNITS = ("generic", "avx2", "avx512_vnni", "avx512_bf16", "amx_bf16")
#: Set this to one of :data:`UNITS` to have that one and no other.
VARIABLE = "SPARKREC_RETRIEVAL_UNIT"
#: Items in a tile: blocks are filled up to whole tiles. The width of a row is a multiple of it, too.
TILE = 32

#: What an exact search looks at first, numbered as in ``scan.cpp``; the result is the same.
LOOKS = ("measured", "words", "bytes")

_LOOK = "measured"
_CACHE = 512 << 10  # bytes of one block of items: it stays in the second-level cache while the users pass


@dataclass(frozen=True)
class Packed:
    """An item matrix as the search reads it. ``vectors``, ``rows`` and ``order`` may be memory-mapped.

    Attributes
    ----------
    vectors
        float32 ``[m, d]`` as they came, for the exact scores.
    rows
        ``[r, w]``: those that may be offered, in bfloat16 (as uint16), block after block, in whole tiles.
    bytes
        uint8 ``[r, w]``: the same in steps of the block's largest number by 127, 128 for zero. Or ``[0, w]``: there are
        none.
    order
        int32 ``[r]``: the item of each row; -1 where a block's last tile is only filled up.
    starts
        int64 ``[blocks + 1]``: the row at which each block begins.
    sizes
        float32 ``[7, blocks]``: the largest ‖v‖, ‖v'‖ and ‖v − v'‖ in each block, v' being v in bfloat16; the same of
        bytes; their step.
    """

    vectors: F32
    rows: NDArray[np.uint16]
    bytes: NDArray[np.uint8]
    order: I32
    starts: I64
    sizes: F32


def width_of(depth: int) -> int:
    """The width of the rows for vectors of this width."""
    return max(1, -(-depth // TILE)) * TILE


def by_length(norms: NDArray[np.floating], width: int, allowed: NDArray[np.bool_] | None = None) -> tuple[I32, I64]:
    """``order`` and ``starts`` for an exact search: the longest vectors first, blocks of one size.

    Long vectors raise the threshold early, and a block of short ones is left out for users whom it cannot reach.
    """
    order = np.argsort(-norms, kind="stable").astype(np.int32)
    if allowed is not None:
        order = order[allowed[order]]
    order = np.concatenate([order, np.full(-len(order) % TILE, -1, np.int32)])
    block = max(1, _CACHE // (2 * width * TILE)) * TILE
    return order, np.append(np.arange(0, len(order), block), len(order)).astype(np.int64)


def in_memory(_: str, shape: tuple[int, int], kind: type[np.generic]) -> NDArray[Any]:
    """Memory for a field of :class:`Packed`."""
    return np.empty(shape, kind)


def pack(vectors: F32, order: I32, starts: I64, bytes: bool = True, place: Place = in_memory) -> Packed:
    """The packed form of ``vectors``, in memory that ``place`` gives. ``bytes`` make a search in all blocks faster."""
    vectors = np.ascontiguousarray(vectors, np.float32)
    depth = vectors.shape[1]
    width = width_of(depth)
    rows = place("rows", (len(order), width), np.uint16)
    coarse = place("bytes", (len(order) if bytes else 0, width), np.uint8)
    sizes = np.zeros((7, len(starts) - 1), np.float32)
    _library().sparkrec_pack(
        _of(vectors), depth, width, _of(order), _of(starts), len(starts) - 1, _of(rows),
        _of(coarse) if bytes else None, _of(sizes), _of(sizes[6]),
    )  # fmt: skip
    return Packed(vectors, rows, coarse, order, starts, sizes)


def search(
    items: Packed,
    users: F32,
    k: int,
    exclude: Csr | None = None,
    allowed: NDArray[np.bool_] | None = None,
    nearest: I32 | None = None,
    proposed: I32 | None = None,
) -> tuple[I32, F32]:
    """The ``k`` best items of each user, ``[n, k]`` each: see :func:`sparkrec.retrieval.topk.top_k`.

    With ``nearest`` ``[n, probes]`` it looks into those blocks only (-1: none), the most promising first; with
    ``proposed`` ``[n, proposals]`` at those items only (-1: none, no item twice). Whoever is left with fewer than ``k``
    is searched for in all blocks.
    """
    users = np.ascontiguousarray(users, np.float32)
    indptr, excluded = (None, None) if exclude is None else exclude
    held = (  # referred to by address only
        users, _as(indptr, np.int64), _as(excluded, np.int32), _as(allowed, np.uint8), _as(nearest, np.int32),
        _as(proposed, np.int32),
    )  # fmt: skip
    probes, proposals = (0 if array is None else array.shape[1] for array in (nearest, proposed))
    request = _Request(_of(users), len(users), k, probes, LOOKS.index(_LOOK), proposals, *map(_of, held[1:]))
    catalogue = _Catalogue(
        _of(items.rows), _of(items.bytes) if len(items.bytes) else None, _of(items.order), _of(items.sizes),
        _of(items.sizes[6]), _of(items.vectors), _of(items.starts),
        len(items.rows), len(items.vectors), len(items.starts) - 1, items.rows.shape[1], users.shape[1],
    )  # fmt: skip
    indices, scores = np.empty((len(users), k), np.int32), np.empty((len(users), k), np.float32)
    unit = UNITS.index(best_unit())
    if _library().sparkrec_search(unit, ctypes.byref(catalogue), ctypes.byref(request), _of(indices), _of(scores)):
        raise MemoryError("The search of the similarity join found not enough memory for its candidates.")
    return indices, scores


def exact_scores(users: F32, items: F32, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> F32:
    """``⟨users[rows[p]], items[columns[p]]⟩`` for each pair p: double precision, a fixed tree of sums, then float32.

    A pair's score does not depend on the other pairs, nor on the machine.
    """
    users, items = (np.ascontiguousarray(vectors, np.float32) for vectors in (users, items))
    rows, columns = (np.ascontiguousarray(part, np.int64) for part in (rows, columns))
    scores = np.empty(len(rows), np.float32)
    _library().sparkrec_exact(_of(users), _of(items), users.shape[1], _of(rows), _of(columns), len(rows), _of(scores))
    return scores


def units() -> tuple[str, ...]:
    """What this CPU, and the system on it, can use; the best last."""
    mask = _library().sparkrec_units()
    return tuple(name for number, name in enumerate(UNITS) if mask >> number & 1)


def best_unit() -> str:
    """The unit that searches use: the best there is, unless :data:`VARIABLE` names another."""
    wanted, known = os.environ.get(VARIABLE), units()
    if wanted is None:
        return known[-1]
    if wanted not in known:
        raise ConfigError(f"{VARIABLE} asks for '{wanted}', and this machine has {', '.join(known)}. Unset it.")
    return wanted


class _Catalogue(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("words", "bytes", "order", "sizes", "steps", "vectors", "starts")),
        *((name, ctypes.c_int64) for name in ("rows", "items", "blocks")),
        *((name, ctypes.c_int32) for name in ("width", "depth")),
    )


class _Request(ctypes.Structure):
    _fields_ = (
        ("users", ctypes.c_void_p),
        ("n", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("k", "probes", "look", "proposals")),
        *((name, ctypes.c_void_p) for name in ("indptr", "excluded", "allowed", "nearest", "proposed")),
    )


def _as(array: NDArray[Any] | None, kind: type[np.generic]) -> NDArray[Any] | None:
    return None if array is None else np.ascontiguousarray(array, kind)


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
    library.sparkrec_pack.argtypes = [pointer, i32, i32, pointer, pointer, i64, *[pointer] * 4]
    library.sparkrec_pack.restype = None
    library.sparkrec_exact.argtypes = [pointer, pointer, i32, pointer, pointer, i64, pointer]
    library.sparkrec_exact.restype = None
    library.sparkrec_search.argtypes = [i32, *[pointer] * 4]
    library.sparkrec_search.restype = i32
    return library
