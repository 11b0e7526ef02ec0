"""History encoders: the causal forms against the whole-history forms, and both against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import untrained
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkrec.config import TwoTower
from sparkrec.models.two_tower.encoders import ENCODERS, packed, recurrent
from sparkrec.models.two_tower.encoders.layers import Tokens, gathered_sum, segment_sum, standardise
from sparkrec.models.two_tower.towers import Sizes

pytestmark = pytest.mark.unit

D = 4
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def make(encoder, dtype=np.float32, **changes):
    """Settings, and weights none of which is at its untrained 0 or 1."""
    config = TwoTower(width=D, history=encoder, user_id=False, max_history=9, **changes)
    random = np.random.default_rng(4)
    weights = untrained.weights(config, Sizes(1, 1, 0))
    return config, {name: (w + 0.3 * random.standard_normal(w.shape)).astype(dtype) for name, w in weights.items()}


def one_each(tokens):
    """Tokens that are rows of a table of their own, in order."""
    return Tokens(tf.convert_to_tensor(tokens), np.arange(len(tokens), dtype=np.int32))


def make_batch(lengths):
    segment = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    lag = np.concatenate([[0], *(np.arange(length)[::-1] for length in lengths)])[1:].astype(np.int32)
    return {"history_segment": segment, "history_lag": lag}


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("encoder", ENCODERS)
@settings(max_examples=12)
@given(lengths=LENGTHS, seed=st.integers(0, 99))
def test_at_every_token_the_causal_form_is_the_whole_form_of_what_came_before(encoder, layers, lengths, seed):
    """Segments packed wherever they lie against the blocks; all prefixes are asked as one batch of whole histories."""
    config, weights = make(encoder, layers=layers)
    tokens = np.random.default_rng(seed).standard_normal((sum(lengths), D)).astype(np.float32)
    causal = ENCODERS[encoder].causal(weights, config, make_batch(lengths), one_each(tokens))
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    prefixes = [tokens[start : at + 1] for at, start in enumerate(starts)]
    batch = make_batch([len(prefix) for prefix in prefixes])
    whole = ENCODERS[encoder].whole(weights, config, batch, one_each(np.concatenate(prefixes)), len(prefixes))
    np.testing.assert_allclose(causal, whole, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_user_without_history_has_no_say_in_the_others_and_no_batch_is_too_small(encoder):
    config, weights = make(encoder, dropout=0.3)
    tokens = tf.constant(np.random.default_rng(1).standard_normal((5, D)), tf.float32)
    key, segment = tf.constant([5, 6, 7, 8], tf.uint32), np.asarray([1, 1, 3, 3, 3], np.int32)
    lag = np.asarray([1, 0, 2, 1, 0], np.int32)
    every = {"history_segment": segment, "history_lag": lag, "key": key}
    found = ENCODERS[encoder].whole(weights, config, every, one_each(tokens), 4).numpy()
    some = {"history_segment": segment[:2] - 1, "history_lag": lag[:2], "key": key[1:2]}
    np.testing.assert_allclose(
        ENCODERS[encoder].whole(weights, config, some, one_each(tokens[:2]), 1)[0], found[1], rtol=1e-5
    )
    assert np.isfinite(found).all()
    none = {name: value[:0] for name, value in every.items()}
    assert ENCODERS[encoder].whole(weights, config, none, one_each(tokens[:0]), 0).shape == (0, D)
    assert ENCODERS[encoder].causal(weights, config, none, one_each(tokens[:0])).shape == (0, D)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_gradients_are_those_of_finite_differences(encoder):
    """Along a random direction in all weights and tokens at once, in float64."""
    config, weights = make(encoder, np.float64)
    lengths, random = [2, 9, 1, 3], np.random.default_rng(2)
    weights = {name: w for name, w in weights.items() if name not in ("item_id", "event_type", "history_item")}
    values = [random.standard_normal((15, D)), *weights.values()]
    direction, goal = [random.standard_normal(v.shape) for v in values], random.standard_normal((15, D))

    def score(at):
        tokens, *rest = (tf.constant(v + at * w) for v, w in zip(values, direction, strict=True))
        return along(tokens, rest)

    def along(tokens, rest):
        named, batch = dict(zip(weights, rest, strict=True)), make_batch(lengths)
        return tf.reduce_sum(goal * ENCODERS[encoder].causal(named, config, batch, one_each(tokens)))

    variables = [tf.Variable(v) for v in values]
    with tf.GradientTape() as tape:
        result = along(tf.convert_to_tensor(variables[0]), variables[1:])
    slopes = [tf.convert_to_tensor(slope) for slope in tape.gradient(result, variables)]
    by_rule = sum(float(tf.reduce_sum(slope * w)) for slope, w in zip(slopes, direction, strict=True))
    assert by_rule == pytest.approx(float(score(1e-6) - score(-1e-6)) / 2e-6, rel=1e-5)


@given(lengths=LENGTHS)
@settings(max_examples=25)
def test_a_weighted_sum_of_packed_tokens_is_that_of_a_loop(lengths):
    random = np.random.default_rng(len(lengths))
    by_lag, values, batch = random.random(9), random.standard_normal((sum(lengths), 2)), make_batch(lengths)
    total, mass = packed.weighted_sum(by_lag, values, batch["history_segment"])
    for at, segment in enumerate(batch["history_segment"]):
        seen = [j for j in range(at + 1) if batch["history_segment"][j] == segment]
        np.testing.assert_allclose(total[at], sum(by_lag[at - j] * values[j] for j in seen))
        np.testing.assert_allclose(mass[at, 0], sum(by_lag[at - j] for j in seen))


@pytest.mark.parametrize("typed", [True, False])
def test_the_total_of_tokens_is_the_sum_of_each(typed):
    random, index, segment = np.random.default_rng(7), [2, 0, 2, 1, 2], np.asarray([0, 0, 2, 2, 2], np.int32)
    rows, type_rows = random.standard_normal((3, D)), random.standard_normal((4, D))

    def tokens(rows, type_rows):
        return Tokens(rows, index, type_rows, np.asarray([3, 3, 1, 0, 3], np.int32)) if typed else Tokens(rows, index)

    each = tokens(rows, type_rows).each().numpy()
    expected = [each[:2].sum(0), np.zeros(D), each[2:].sum(0), np.zeros(D)]
    np.testing.assert_allclose(tokens(rows, type_rows).total(segment, 4), expected)
    check_gradient(lambda *v: tokens(*v).total(segment, 4), [tf.constant(rows), tf.constant(type_rows)])


@pytest.mark.parametrize("function", [standardise, lambda rows: segment_sum(rows, [2, 0, 2, 3, 3], 5)])
def test_gradients_written_by_hand(function):
    check_gradient(function, [tf.constant(np.random.default_rng(7).standard_normal((5, D)))])


def test_no_token_sends_no_gradient():
    """What TensorFlow's own gradient of this sum holds is left over from arrays before."""
    empty, rows = tf.zeros([0], tf.int32), tf.Variable(tf.ones([64, D]))
    for _ in range(20):
        left_over = tf.constant(np.full((64, D), np.nan, np.float32)) * 2
        del left_over
        with tf.GradientTape() as tape:
            total = gathered_sum(tf.convert_to_tensor(rows), empty, empty, 3)
        assert not np.any(total)
        assert not np.any(tape.gradient(total, rows))
    nothing = tf.Variable(tf.zeros([0, D]))
    with tf.GradientTape() as tape:
        total = gathered_sum(tf.convert_to_tensor(nothing), empty, empty, 3)
    assert tape.gradient(total, nothing).shape == (0, D)


def check_gradient(function, values):
    by_rule, by_difference = tf.test.compute_gradient(function, values, 1e-5)
    for a, b in zip(by_rule, by_difference, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)


@given(lengths=LENGTHS)
@settings(max_examples=25)
def test_time_major_tokens_are_ordered_by_time_and_then_by_length(lengths):
    place, active = recurrent.time_major(make_batch(lengths)["history_segment"])
    keys = [(time, -length, s) for s, length in enumerate(lengths) for time in range(length)]
    assert [sorted(keys).index(key) for key in keys] == place.numpy().tolist()
    assert active.numpy().tolist() == [sum(length > time for length in lengths) for time in range(max(lengths))]


def norm(scale_and_shift, rows):
    rows = rows - rows.mean(axis=-1, keepdims=True)
    return rows / np.sqrt((rows**2).mean(axis=-1, keepdims=True) + 1e-6) * scale_and_shift[0] + scale_and_shift[1]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def mlp(w, x, prefix=""):
    inner = gelu(norm(w[f"{prefix}norm_block"], x) @ w[f"{prefix}block_up"] + w[f"{prefix}block_up_bias"])
    return x + inner @ w[f"{prefix}block_down"] + w[f"{prefix}block_down_bias"]


def recency_by_hand(w, x):
    values = norm(w["norm_in"], x)
    weight = np.exp(w["recency_lag"][: len(x)])[::-1]
    return mlp(w, x[-1] + (weight @ values / weight.sum()) @ w["recency_out"])


def cnn_by_hand(w, x):
    for layer in range(2):
        name, values = f"cnn_{layer}", norm(w[f"cnn_{layer}_norm"], x)
        back = [
            np.concatenate([np.zeros((min(step, len(x)), D)), values])[: len(x)] for step in (0, 2**layer, 2 * 2**layer)
        ]
        inner = gelu(np.concatenate(back, axis=1) @ w[f"{name}_up"] + w[f"{name}_up_bias"])
        x = x + inner @ w[f"{name}_down"] + w[f"{name}_down_bias"]
    return x[-1]


def gru_by_hand(w, x):
    for layer in range(2):
        name, h, out = f"gru_{layer}", np.zeros(D), []
        for gates in norm(w[f"{name}_norm"], x) @ w[f"{name}_input"] + w[f"{name}_bias"]:
            own = h @ w[f"{name}_recurrent"]
            z, r = sigmoid(gates[:D] + own[:D]), sigmoid(gates[D : 2 * D] + own[D : 2 * D])
            h = z * h + (1 - z) * np.tanh(gates[2 * D :] + r * own[2 * D :])
            out.append(h)
        x = x + np.stack(out) @ w[f"{name}_out"]
    return x[-1]


def lstm_by_hand(w, x):
    for layer in range(2):
        name, h, memory, out = f"lstm_{layer}", np.zeros(D), np.zeros(D), []
        for gates in norm(w[f"{name}_norm"], x) @ w[f"{name}_input"] + w[f"{name}_bias"]:
            i, f, o, g = np.split(gates + h @ w[f"{name}_recurrent"], 4)
            memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(memory)
            out.append(h)
        x = x + np.stack(out) @ w[f"{name}_out"]
    return x[-1]


def attention_by_hand(w, x):
    """Two heads of width 2."""
    for layer in range(2):
        name, out = f"attention_{layer}_", np.zeros_like(x)
        query, key, value = np.split(norm(w[f"{name}norm"], x) @ w[f"{name}in"], 3, axis=1)
        for head, part in enumerate((slice(0, 2), slice(2, 4))):
            for at in range(len(x)):
                score = [
                    query[at, part] @ key[j, part] / np.sqrt(2) + w[f"{name}lag"][at - j, head] for j in range(at + 1)
                ]
                share = np.exp(score) / np.exp(score).sum()
                out[at, part] = share @ value[: at + 1, part]
        x = mlp(w, x + out @ w[f"{name}out"], name)
    return x[-1]


BY_HAND = {
    "recency": recency_by_hand, "cnn": cnn_by_hand, "gru": gru_by_hand, "lstm": lstm_by_hand,
    "attention": attention_by_hand,
}  # fmt: skip


@pytest.mark.parametrize("encoder", BY_HAND)
@pytest.mark.parametrize("length", [1, 6])
def test_an_encoder_is_what_its_formula_says(encoder, length):
    config, weights = make(encoder, np.float64)
    tokens = np.random.default_rng(3).standard_normal((length, D))
    found = ENCODERS[encoder].whole(weights, config, make_batch([length]), one_each(tokens), 1)
    np.testing.assert_allclose(found[0], BY_HAND[encoder](weights, tokens), rtol=1e-6)
