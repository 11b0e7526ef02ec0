"""An index of faiss misses items; it never bends a score, an order or a filter, and leaves no place empty."""

from __future__ import annotations

import numpy as np
import pytest

from sparkrec.config.recommend import Faiss
from sparkrec.errors import ConfigError
from sparkrec.retrieval import indexes, kernel, topk
from sparkrec.retrieval.recall import reached

pytestmark = pytest.mark.unit

K, N, M = 10, 60, 3000


@pytest.fixture(scope="module")
def problem():
    random = np.random.default_rng(4)
    heads = random.normal(size=(30, 16))
    users, items = (heads[random.integers(0, 30, n)] + 0.3 * random.normal(size=(n, 16)) for n in (N, M))
    items *= random.lognormal(0, 0.2, (M, 1))
    wanted = np.argsort(-(users @ items.T), axis=1)[:, :40]
    counts = random.integers(0, 40, N)  # of what they like best: what a search would find first
    seen = np.concatenate([row[:n] for row, n in zip(wanted, counts, strict=True)])
    csr = np.concatenate([[0], np.cumsum(counts)]), seen
    return users.astype(np.float32), items.astype(np.float32), csr, random.random(M) < 0.8


def indexed(folder, items, allowed, how, parts=2):
    """A catalogue in parts, each with its index, through files."""
    plain = topk.pack(items, allowed, parts)
    found = []
    for number, part in enumerate(plain.parts):
        file = folder / f"{number}.faiss"
        indexes.write(part.vectors, part.order[part.order >= 0], how, file)
        found.append(indexes.read(str(file), part, how))
    return topk.Catalogue(items, plain.parts, indexes=tuple(found))


@pytest.mark.parametrize(
    ("index", "parameters"),
    [
        ("HNSW16", "efSearch=64"), ("IVF32,Flat", "nprobe=8"), ("SQ8", ""), ("PQ8x4fs", ""), ("Flat", ""),
        ("HNSW16_SQ8", "efSearch=64"), ("IVF16,PQ8x4fs", "nprobe=8"),
    ],
)  # fmt: skip
def test_lists_are_scored_ordered_and_filtered_exactly(problem, tmp_path, index, parameters):
    users, items, seen, allowed = problem
    some = np.random.default_rng(5).random(M) < 0.7
    catalogue = indexed(tmp_path, items, allowed, Faiss(index=index, parameters=parameters, candidates=4))
    found, scores = topk.top_k(users, catalogue, K, seen, some)
    rows = np.repeat(np.arange(N), K)
    np.testing.assert_array_equal(scores.reshape(-1), topk.exact_scores(users, items, rows, found.reshape(-1)))
    assert ((np.diff(scores, axis=1) < 0) | ((np.diff(scores, axis=1) == 0) & (np.diff(found, axis=1) > 0))).all()
    assert (allowed & some)[found].all()
    for user, row in enumerate(found):
        assert not np.isin(row, seen[1][seen[0][user] : seen[0][user + 1]]).any()
    wanted, best = topk.top_k(users, items, K, seen, allowed & some)
    assert reached(scores, best) / wanted.size > 0.9
    if index == "Flat":
        np.testing.assert_array_equal(found, wanted)


def test_of_what_is_proposed_the_best_are_kept_for_however_many_users():
    # More than the kernel holds candidates of at a time: what it held of the first is nothing to the last.
    n, m, proposals = 5000, 600, 80
    random = np.random.default_rng(8)
    users, items = (random.normal(size=(x, 6)).astype(np.float32) for x in (n, m))
    proposed = np.argsort(random.random((n, m)), axis=1)[:, :proposals].astype(np.int32)
    found, scores = kernel.search(topk.pack(items).parts[0], users, K, proposed=proposed)
    values = (users[:, None, :].astype(np.float64) * items[proposed]).sum(axis=2)
    best = np.argsort(-values, axis=1)[:, :K]
    np.testing.assert_array_equal(found, np.take_along_axis(proposed, best, axis=1))
    np.testing.assert_allclose(scores, np.take_along_axis(values, best, axis=1), rtol=1e-6)


def in_blocks(users, catalogue, seen, size):
    """Lists of all users, so many asked for together."""
    parts = []
    for start in range(0, N, size):
        block = users[start : start + size]
        parts.append(topk.top_k(block, catalogue, K, (seen[0][start : start + len(block) + 1], seen[1]))[0])
    return np.concatenate(parts)


@pytest.mark.parametrize(("index", "parameters"), [("HNSW4", "efSearch=1"), ("IVF64,Flat", ""), ("IVF64,PQ4x4fs", "")])
def test_what_a_user_gets_does_not_depend_on_who_else_is_asked_for(problem, tmp_path, index, parameters):
    """Poor indexes, asked for as little as may be: how much is proposed changes what is found."""
    users, items, seen, allowed = problem
    catalogue = indexed(tmp_path, items, allowed, Faiss(index=index, parameters=parameters, candidates=1))
    alone = in_blocks(users, catalogue, seen, 1)
    assert (alone != in_blocks(users, catalogue.exact, seen, 1)).any(), "it misses something"
    for size in (7, 25, N):
        np.testing.assert_array_equal(in_blocks(users, catalogue, seen, size), alone)


def test_nor_on_how_many_are_multiplied_at_a_time(tmp_path, monkeypatch):
    """Items so close that products of matrices, and of vectors, put others of them first."""
    import faiss

    monkeypatch.setattr(faiss.cvar, "distance_compute_blas_threshold", 1)
    random = np.random.default_rng(8)
    head = random.normal(size=64)
    items = (head + 1e-6 * random.normal(size=(2000, 64))).astype(np.float32)
    users = (head + random.normal(size=(N, 64))).astype(np.float32)
    catalogue = indexed(tmp_path, items, np.ones(2000, bool), Faiss(index="Flat", candidates=1), parts=1)
    seen = np.zeros(N + 1, np.int64), np.zeros(0, np.int64)
    alone = in_blocks(users, catalogue, seen, 1)
    for size in (7, N):
        np.testing.assert_array_equal(in_blocks(users, catalogue, seen, size), alone)


def test_who_is_left_with_too_few_is_searched_for_exactly(problem, tmp_path):
    users, items, seen, allowed = problem
    few = np.zeros(M, bool)
    few[np.random.default_rng(6).choice(np.flatnonzero(allowed), 15)] = True
    catalogue = indexed(tmp_path, items, allowed, Faiss(index="HNSW16", candidates=1))
    for left, right in zip(
        topk.top_k(users, catalogue, K, seen, few), topk.top_k(users, items, K, seen, few), strict=True
    ):
        np.testing.assert_array_equal(left, right)


def test_more_places_than_items(problem, tmp_path):
    users, items, _, _ = problem
    catalogue = indexed(tmp_path, items[:100], np.ones(100, bool), Faiss(index="Flat"), parts=3)
    for left, right in zip(topk.top_k(users, catalogue, 120), topk.top_k(users, items[:100], 120), strict=True):
        np.testing.assert_array_equal(left, right)


def test_where_nothing_may_be_offered_every_place_is_empty(problem, tmp_path):
    users, items, seen, _ = problem
    catalogue = indexed(tmp_path, items, np.zeros(M, bool), Faiss(index="IVF32,Flat"))
    assert (topk.top_k(users, catalogue, K, seen)[0] == -1).all()


def test_the_same_items_give_the_same_index(problem, tmp_path):
    _, items, _, _ = problem
    for name in ("HNSW16", "IVF32,SQ8"):
        for file in ("one", "two"):
            indexes.write(items, np.arange(M, dtype=np.int32), Faiss(index=name), tmp_path / file)
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_who_has_met_a_large_part_of_the_shop_is_searched_for_exactly(problem, tmp_path, monkeypatch):
    users, items, _, allowed = problem
    seen = np.array([0, 1000]), np.random.default_rng(7).permutation(M)[:1000]
    catalogue = indexed(tmp_path, items, allowed, Faiss(index="HNSW16"), parts=1)
    monkeypatch.setattr(indexes.Index, "_proposed", lambda *_: pytest.fail("the index was asked"))
    found, wanted = (topk.top_k(users[:1], how, K, seen) for how in (catalogue, catalogue.exact))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"index": "HNSX"}, "'HNSX' with parameters ''.*could not parse"),
        ({"index": "SQ8", "parameters": "nprobe=3"}, "'nprobe=3'.*could not set parameter nprobe"),
        ({"index": "PQ7"}, "width 16"),
        ({"index": "IVF5000,Flat"}, "of 3,000 vectors"),
    ],
)
def test_an_index_that_faiss_cannot_make_is_named(problem, tmp_path, how, said):
    _, items, _, _ = problem
    with pytest.raises(ConfigError, match=rf"recommend\.faiss\.index {said}|recommend\.faiss\.index .*{said}"):
        indexes.write(items, np.arange(M, dtype=np.int32), Faiss(**how), tmp_path / "index")


def test_threads_and_matrix_products_are_given_back(problem, tmp_path, monkeypatch):
    import faiss

    threads, before = faiss.omp_get_max_threads(), (3, 17)
    faiss.omp_set_num_threads(3)
    monkeypatch.setattr(faiss.cvar, "distance_compute_blas_threshold", 17)
    with pytest.raises(ConfigError):
        indexes.write(problem[1], np.arange(9, dtype=np.int32), Faiss(index="IVF10,Flat"), tmp_path / "index")
    users, items, seen, allowed = problem
    topk.top_k(users, indexed(tmp_path, items, allowed, Faiss(index="SQ8")), K, seen)
    found = faiss.omp_get_max_threads(), faiss.cvar.distance_compute_blas_threshold
    faiss.omp_set_num_threads(threads)
    assert found == before
