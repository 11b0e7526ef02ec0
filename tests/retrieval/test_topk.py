"""Exact top-k against a brute force that sorts everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkrec.errors import ConfigError, DataError
from sparkrec.retrieval import kernel, topk
from sparkrec.retrieval.topk import top_k

pytestmark = pytest.mark.unit


def brute_force(users, items, k, seen=None, allowed=None):
    """Every score in double precision, sorted in plain Python."""
    chosen, values = [], []
    for u, user in enumerate(users):
        barred = set() if seen is None else set(seen[u])
        scored = [
            (-np.float32(sum(float(a) * float(b) for a, b in zip(user, item, strict=True))), i)
            for i, item in enumerate(items)
            if i not in barred and (allowed is None or allowed[i])
        ]
        best = sorted(scored)[:k]
        chosen.append([i for _, i in best] + [-1] * (k - len(best)))
        values.append([-s for s, _ in best] + [-np.inf] * (k - len(best)))
    return np.array(chosen, np.int32).reshape(len(users), k), np.array(values, np.float32).reshape(len(users), k)


def as_csr(seen):
    indptr = np.concatenate([[0], np.cumsum([len(s) for s in seen])]).astype(np.int64)
    return indptr, np.array([i for s in seen for i in s], np.int32)


@st.composite
def problems(draw):
    """Small integers, so that ties abound and every sum is exact; some items doubled, some seen, some barred."""
    n, m, d = draw(st.integers(0, 5)), draw(st.integers(0, 40)), draw(st.integers(1, 5))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    users = random.integers(-2, 3, (n, d)).astype(np.float32)
    items = random.integers(-2, 3, (m, d)).astype(np.float32)
    share = draw(st.sampled_from([0.0, 0.3, 1.0]))
    seen = [list(np.flatnonzero(random.random(m) < share)) for _ in range(n)]
    allowed = random.random(m) < draw(st.sampled_from([0.0, 0.7, 1.0]))
    k, unit, parts = draw(st.integers(1, 12)), draw(st.sampled_from(kernel.units())), draw(st.integers(1, 3))
    return users, items, k, seen, allowed, unit, parts


@settings(max_examples=200)
@given(problems())
def test_equals_brute_force(problem):
    users, items, k, seen, allowed, unit, parts = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(kernel.VARIABLE, unit)
        indices, scores = top_k(users, topk.pack(items, allowed, parts), k, as_csr(seen))
        later = top_k(users, topk.pack(items, None, parts), k, as_csr(seen), allowed)
    same((indices, scores), later)
    expected_indices, expected_scores = brute_force(users, items, k, seen, allowed)
    assert indices.dtype == np.int32
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(scores, expected_scores)


WAYS = [(unit, look) for unit in kernel.units() for look in ("words", *["bytes"] * ("avx512" in unit))]


@pytest.fixture(params=WAYS, ids="-".join)
def unit(request, monkeypatch):
    """Each of the ways in which this CPU can multiply."""
    unit, look = request.param
    monkeypatch.setenv(kernel.VARIABLE, unit)
    monkeypatch.setattr(kernel, "_LOOK", look)
    return unit


def exact_scores(users, items):
    """Every score by the tree of sums that the kernel promises: elementwise, in double precision, then float32."""
    terms = users.astype(np.float64)[:, None, :] * items.astype(np.float64)[None, :, :]
    while terms.shape[2] > 1:
        half = terms.shape[2] // 2
        terms = np.concatenate([terms[..., :half] + terms[..., half : 2 * half], terms[..., 2 * half :]], axis=2)
    return terms[..., 0].astype(np.float32)


def sorted_whole(users, items, k, seen=None):
    """The k best of everything by :func:`exact_scores`."""
    scores = exact_scores(users, items)
    for u, barred in enumerate(seen or []):
        scores[u, barred] = -np.inf
    order = np.stack([np.lexsort((np.arange(len(items)), -row)) for row in scores])[:, :k].astype(np.int32)
    return order, np.take_along_axis(scores, order, axis=1)


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def draws(seed, n, m, d, spread=0.0):
    random = np.random.default_rng(seed)
    lengths = random.lognormal(0, spread, (m, 1))
    return random.normal(size=(n, d)).astype(np.float32), (random.normal(size=(m, d)) * lengths).astype(np.float32)


@pytest.mark.parametrize(
    ("d", "k", "spread"),
    [(1, 3, 0.0), (7, 11, 0.0), (31, 1, 1.0), (64, 20, 0.5), (200, 5, 0.0), (64, 40, 2.0), (64, 300, 2.0)],
)
def test_every_unit_equals_sorting_everything_to_the_bit(unit, monkeypatch, d, k, spread):
    monkeypatch.setattr(kernel, "_CACHE", 1 << 14)  # several blocks
    users, items = draws(d + k, 40, 2600, d, spread)
    items[1500:1700] = items[:200]  # exact ties between blocks
    random = np.random.default_rng(1)
    seen = [list(random.choice(2600, s, replace=False)) for s in [0, 1, 30, 2590, 2600] * 8]
    indices, scores = top_k(users, items, k, as_csr(seen))
    expected, values = sorted_whole(users, items, k, seen)
    same((indices, scores), (np.where(values == -np.inf, -1, expected).astype(np.int32), values))


@settings(max_examples=100)
@given(
    st.sampled_from(WAYS),
    st.integers(0, 2**32),
    st.integers(1, 3),
    st.integers(1, 70),
    st.sampled_from([0.0, 1.0, 4.0]),
)
def test_what_is_far_from_round_is_no_matter(way, seed, k, d, spread):
    # Numbers, dimensions and vectors of very different size: what is rounded to steps of the largest is badly rounded.
    random = np.random.default_rng(seed)
    users, items = random.normal(size=(5, d)), random.normal(size=(64 * k + random.integers(0, 200), d))
    users, items = users * random.lognormal(0, spread, d), items * random.lognormal(0, spread, d)
    items = items * random.lognormal(0, spread / 4, (len(items), 1)) + random.normal(size=d) * spread
    items[7::9] = items[: len(items[7::9])] * (1 + 1e-6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(kernel.VARIABLE, way[0])
        patch.setattr(kernel, "_LOOK", way[1])
        patch.setattr(kernel, "_CACHE", 1 << 12)
        users, items = users.astype(np.float32), items.astype(np.float32)
        same(top_k(users, items, k), sorted_whole(users, items, k))


@pytest.mark.parametrize("shape", ["balls", "a constant beside them", "one vector many times"])
def test_whichever_look_is_measured_to_pay_the_lists_are_the_same(monkeypatch, shape):
    users, items = draws(3, 600, 9000, 33, spread=0.3)
    if shape == "a constant beside them":  # of bytes it leaves nothing for the other numbers
        users[:, 0], items[:, 0] = 1, 500
    if shape == "one vector many times":
        items[:] = items[0]
    seen = [list(range(u, 9000, 5)) for u in range(600)]
    packed = topk.pack(items)
    found = top_k(users, packed, 20, as_csr(seen))
    some = np.arange(0, 600, 40)
    same([part[some] for part in found], sorted_whole(users[some], items, 20, [seen[u] for u in some]))
    for look in kernel.LOOKS:
        monkeypatch.setattr(kernel, "_LOOK", look)
        same(found, top_k(users, packed, 20, as_csr(seen)))


def test_the_order_is_right_where_bfloat16_turns_it_round(unit):
    # Of a worse item every element but one lies just above the middle between two bfloat16 numbers, of a better one
    # just below: rounded, the worse ones win by nearly what the bound allows for the items.
    middle, m, d = 1 + 2.0**-8, 8192, 8
    items = np.full((m, d), middle + 2.0**-20, np.float32)
    items[:, -1] = 1.0
    items[3::64] = middle - 2.0**-20
    low = (items.view(np.uint32) + 0x8000 & 0xFFFF0000).view(np.float32)
    assert low[3::64].sum(axis=1).max() < low[0::64].sum(axis=1).min()
    users = np.full((3, d), middle - 2.0**-20, np.float32)
    found = top_k(users, items, 100)
    same(found, sorted_whole(users, items, 100))
    assert (found[0] % 64 == 3).all()


@pytest.mark.parametrize("scale", [2.0**-80, 2.0**-140, 2.0**61 / 16])
def test_numbers_at_either_end_of_the_range(unit, scale):
    users, items = draws(4, 20, 700, 8)
    users, items = (users * np.float32(scale)), (items * np.float32(scale))
    if scale > 1:
        users, items = (x / np.float32(np.linalg.norm(x, axis=1).max() / (2.0**61.9)) for x in (users, items))
    same(top_k(users, items, 10), sorted_whole(users, items, 10))


def test_a_group_that_is_not_full_holds_nothing_of_the_group_before(unit):
    # 32 users and 8: what a lane without a user would add up for one of the first is beyond all numbers.
    users = -np.full((40, 1024), 2.0**56.9, np.float32) * np.linspace(0.9, 1, 40, dtype=np.float32)[:, None]
    items = np.zeros((200, 1024), np.float32)
    items[np.arange(200), np.arange(200) * 5] = np.linspace(0.5, 1, 200) * 2.0**61.9
    same(top_k(users, items, 3), sorted_whole(users, items, 3))


def test_the_result_does_not_depend_on_blocks_to_the_bit(unit, monkeypatch):
    users, items = draws(2, 61, 2600, 64)
    # Neighbours that differ by one unit in the last place: where a product's rounding would change the order.
    items[1300:] = np.nextafter(items[:1300], np.float32(np.inf))
    whole = sorted_whole(users, items, 20)
    same(top_k(users, items, 20), whole)
    for cache in (1 << 12, 1 << 22):
        monkeypatch.setattr(kernel, "_CACHE", cache)
        for number in (1, 3):
            packed = topk.pack(items, parts=number)
            lists = [top_k(users[i : i + 7], packed, 20) for i in range(0, 61, 7)]
            same([np.concatenate(part) for part in zip(*lists, strict=True)], whole)


def test_a_guess_that_is_too_high_is_found_out(unit):
    # The sample is every 16th tile of 32, the longest vectors first: it holds all of what points the user's way.
    items = np.full((4096, 2), [1.0, 0.0], np.float32)
    items[np.arange(4096) // 32 % 16 == 8] = [0.5, np.sqrt(0.75) - 1e-4]
    users = np.array([[-1.0, 3.0 + u] for u in range(40)], np.float32)
    same(top_k(users, items, 64), sorted_whole(users, items, 64))
    same(top_k(users, items, 64, as_csr([range(8 * 32 + u, 4096) for u in range(40)])),
         sorted_whole(users, items, 64, [range(8 * 32 + u, 4096) for u in range(40)]))  # fmt: skip


def test_a_catalogue_of_one_item_many_times_is_a_list_of_the_first(unit):
    users, items = np.ones((3, 5), np.float32), np.full((20_000, 5), 0.3, np.float32)
    indices, _ = top_k(users, items, 50, as_csr([[], [0, 2], [1]]))
    assert indices[:, :3].tolist() == [[0, 1, 2], [1, 3, 4], [0, 2, 3]]
    assert (np.diff(indices[:, 3:], axis=1) == 1).all()


def test_the_score_of_a_pair_is_a_double_product_by_a_fixed_tree_of_sums(unit):
    for d in (1, 3, 16, 77):
        users, items = draws(d, 9, 50, d)
        rows, columns = np.divmod(np.arange(450), 50)
        same((topk.exact_scores(users, items, rows, columns),), (exact_scores(users, items).reshape(-1),))


def test_a_unit_that_is_not_there_is_refused_by_name(monkeypatch):
    monkeypatch.setenv(kernel.VARIABLE, "abacus")
    with pytest.raises(ConfigError, match=r"'abacus'.*this machine has generic"):
        top_k(np.ones((1, 1), np.float32), np.ones((1, 1), np.float32), 1)


def test_order_is_that_of_the_exact_scores_where_float32_cannot_tell():
    # Exactly: 2^25 + 1 − 2^25 = 1 for item 0, 1.5 for item 1; summed in float32 from the left the 1 is lost.
    users = np.array([[1, 1, 1]], np.float32)
    items = np.array([[2**25, 1, -(2**25)], [0, 0.5, 0], [2**25, 1.5, -(2**25)]], np.float32)
    indices, scores = top_k(users, items, 3)
    assert indices.tolist() == [[2, 0, 1]]
    assert scores.tolist() == [[1.5, 1.0, 0.5]]


def test_ties_go_to_the_lower_index_beyond_the_kth():
    users = np.ones((2, 1), np.float32)
    items = np.zeros((100_000, 1), np.float32)
    items[[70_000, 99_999]] = 1
    indices, _ = top_k(users, items, 5, as_csr([[0, 2], []]))
    assert indices.tolist() == [[70_000, 99_999, 1, 3, 4], [70_000, 99_999, 0, 1, 2]]


def test_duplicates_in_what_is_seen_do_not_matter():
    indices, _ = top_k(np.ones((1, 1), np.float32), np.arange(4, dtype=np.float32)[:, None], 2, as_csr([[3, 3, 3]]))
    assert indices.tolist() == [[2, 1]]


@pytest.mark.parametrize(
    ("users", "items", "message"),
    [
        (np.ones((1, 2)), np.ones((3, 4)), r"\[1, 2\].*\[3, 4\].*same width"),
        (np.array([[1.0], [np.nan]]), np.ones((3, 1)), "user vector in row 1"),
        (np.ones((1, 1)), np.array([[1.0], [0], [np.inf]]), "item vector in row 2"),
        (np.ones((1, 1)), np.array([[1e30]]), "item vector in row 0"),
    ],
)
def test_what_cannot_be_ranked_is_refused_by_name(users, items, message):
    with pytest.raises(DataError, match=message):
        top_k(users.astype(np.float32), items.astype(np.float32), 1)


def test_marks_of_another_size_are_refused():
    users, items = np.ones((2, 1), np.float32), np.ones((3, 1), np.float32)
    with pytest.raises(DataError, match="1 users have seen, for 2"):
        top_k(users, items, 1, as_csr([[0]]))
    with pytest.raises(DataError, match=r"4 marks.*3 items"):
        top_k(users, items, 1, allowed=np.ones(4, bool))
