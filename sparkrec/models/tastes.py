"""Tastes as a model: distributions over kinds of items (categories or brands), compared by their divergence.

The kinds z are those with the most events, at most ``tastes.width``, and one more for the rest if there is a rest. With
w_u(i) the weight of user u's events on item i (what :func:`popularity.weights` says), all of them before the split:

- a user's: p_u(z), the share of z in the user's events on items of a kind, as it is;
- the shop's: s(z) = (n(z) + 1) / (n + kinds), n(z) and n the weights of all such events: as if each kind had been met
  once more, so that none is impossible;
- an item's: q_i(z) = (1 − λ) · (Σ_u w_u(i) p_u(z) + μ s(z)) / (Σ_u w_u(i) + μ) + λ [z is i's own kind], over users u
  who met it and have a taste: what its audience likes, drawn towards the shop's where that is small, and its own kind
  mixed in. μ = ``tastes.prior`` events; λ = ``tastes.own``, and 0 for an item without a kind. So an item without events
  has a distribution too. (The first part is the posterior mean under a Dirichlet prior: Zhai and Lafferty, *A study of
  smoothing methods for language models applied to information retrieval*, ACM TOIS 22(2), 2004, equation 6.)

Items are ranked by −KL(p_u ‖ q_i) = ⟨p_u, log q_i⟩ + H(p_u) (Lafferty and Zhai, *Document language models, query
models, and risk minimization for information retrieval*, SIGIR 2001). The entropy H is the same for all items of a
user, so the vectors are p_u and log q_i, and the join does the rest. Users without an event on an item of a kind have
none.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.config.tastes import Tastes
from sparkrec.errors import ConfigError
from sparkrec.features import exact
from sparkrec.models import popularity

NAME = "tastes"
_CODE, _KIND, _OWN, _ALL, _BY_KIND = "_code", "_kind", "_own", "_all", "_by_kind"


@dataclass(frozen=True)
class Kinds:
    """``codes`` in gold.vocabulary_features of the kinds that stand for themselves; ``shares`` s of all kinds.

    There is one share more where what is left is a kind, the last.
    """

    codes: tuple[int, ...]
    shares: tuple[float, ...]

    def of(self, code: Column) -> Column:
        """The number of the kind, from 0; null where there is no code, or no kind for it."""
        place = F.array_position(F.array(*map(F.lit, self.codes)), code)
        rest = F.lit(len(self.codes) if len(self.shares) > len(self.codes) else None)
        return F.when(place > 0, place - 1).when(place == 0, rest).cast("int")


def met(sequences: DataFrame, half_life_days: float | None) -> DataFrame:
    """User index, item index and score: the weight of a user's events on an item, above 0."""
    events = popularity.weights(sequences, half_life_days)
    return events.groupBy(c.USER_INDEX, c.ITEM_INDEX).agg(popularity.total().alias(c.SCORE)).where(F.col(c.SCORE) > 0)


def kinds(met: DataFrame, items: DataFrame, settings: Tastes) -> Kinds:
    """Which kinds there are, those of most events first (ties: the lower code). No more than those are collected.

    ``met`` is from :func:`met`, ``items`` is gold.items.

    Raises
    ------
    ConfigError
        No item has a kind.
    """
    by_item = met.groupBy(c.ITEM_INDEX).agg(F.sum(c.SCORE).alias(c.SCORE))
    known = items.select(c.ITEM_INDEX, _code(settings).alias(_CODE)).where(F.col(_CODE).isNotNull())
    sizes = known.join(by_item, c.ITEM_INDEX, "left").groupBy(_CODE)
    by_kind = sizes.agg(F.coalesce(F.sum(c.SCORE), F.lit(0.0)).alias(c.SCORE))
    rows = by_kind.orderBy(F.desc(c.SCORE), _CODE).limit(settings.width + 1).collect()
    if not rows:
        other = "category" if settings.by == "brand" else "brand"
        raise ConfigError(
            f"tastes.by is {settings.by}, and no item of gold.items has a {settings.by}, so there is nothing to have a "
            f"taste for. Set tastes.by to {other} if the catalogue has it, or take tastes out of recommend.models and "
            "similar.models."
        )
    counts = [row[c.SCORE] for row in rows[: settings.width]]
    if len(rows) > settings.width:
        everything = by_kind.agg(F.sum(c.SCORE)).head()
        assert everything is not None
        counts.append(everything[0] - sum(counts))  # exact: whole numbers of 2⁻²⁰
    shares = [(count + 1) / (sum(counts) + len(counts)) for count in counts]
    return Kinds(tuple(row[_CODE] for row in rows[: settings.width]), tuple(shares))


def of_users(met: DataFrame, items: DataFrame, kinds: Kinds, settings: Tastes) -> DataFrame:
    """User index and the shares p by kind that are not 0, of every user who has met an item of a kind."""
    known = items.select(c.ITEM_INDEX, kinds.of(_code(settings)).alias(_KIND)).where(F.col(_KIND).isNotNull())
    totals = met.join(known, c.ITEM_INDEX).groupBy(c.USER_INDEX, _KIND).agg(F.sum(c.SCORE).alias(c.SCORE))
    rows = totals.groupBy(c.USER_INDEX).agg(_collected(F.col(c.SCORE)), F.sum(c.SCORE).alias(_ALL))
    shares = F.transform_values(_BY_KIND, lambda _, score: score / F.col(_ALL))
    return rows.select(c.USER_INDEX, shares.alias(_BY_KIND))


def user_vectors(vocabulary: DataFrame, tastes: DataFrame, kinds: Kinds) -> DataFrame:
    """p of :func:`of_users` as vectors."""
    rows = vocabulary.select(c.USER_INDEX, c.USER_ID).join(tastes, c.USER_INDEX)
    return rows.select(c.USER_INDEX, c.USER_ID, _dense(kinds).cast("array<float>").alias(c.VECTOR))


def item_vectors(items: DataFrame, met: DataFrame, tastes: DataFrame, kinds: Kinds, settings: Tastes) -> DataFrame:
    """log q of every item of ``items``, gold.items. ``tastes`` is from :func:`of_users`."""
    entries = tastes.select(c.USER_INDEX, F.explode(_BY_KIND).alias(_KIND, "_share"))
    liked = met.join(entries, c.USER_INDEX).groupBy(c.ITEM_INDEX, _KIND)
    amounts = liked.agg(exact.sum_of(F.col(c.SCORE) * F.col("_share")).alias(c.SCORE))
    by_item = amounts.groupBy(c.ITEM_INDEX).agg(_collected(exact.total(c.SCORE)))
    rows = items.select(c.ITEM_INDEX, c.ITEM_ID, kinds.of(_code(settings)).alias(_OWN))
    shares = F.array(*map(F.lit, kinds.shares))
    prior, own = F.lit(float(settings.prior)), F.when(F.col(_OWN).isNull(), 0.0).otherwise(float(settings.own))
    # Added up in the order of the kinds: a sum of doubles depends on it.
    everything = F.aggregate(_dense(kinds), F.lit(0.0), lambda total, amount: total + amount)
    dense = rows.join(by_item, c.ITEM_INDEX, "left").withColumns({"_amounts": _dense(kinds), _ALL: everything})

    def logarithm(amount: Column, kind: Column) -> Column:
        audience = (amount + prior * F.get(shares, kind)) / (F.col(_ALL) + prior)
        return F.log((1 - own) * audience + F.when(F.col(_OWN) == kind, own).otherwise(0.0)).cast("float")

    return dense.select(c.ITEM_INDEX, c.ITEM_ID, F.transform("_amounts", logarithm).alias(c.VECTOR))


def _code(settings: Tastes) -> Column:
    """Of an item of gold.items: the whole path of categories, or the brand."""
    return F.try_element_at(c.CATEGORY_CODES, F.lit(-1)) if settings.by == "category" else F.col(c.BRAND_CODE)


def _collected(score: Column) -> Column:
    """The aggregate that :func:`_dense` reads."""
    return F.map_from_entries(F.collect_list(F.struct(_KIND, score))).alias(_BY_KIND)


def _dense(kinds: Kinds) -> Column:
    """A score for each kind, 0 where none was collected."""
    places = F.sequence(F.lit(0), F.lit(len(kinds.shares) - 1))
    return F.transform(places, lambda kind: F.coalesce(F.try_element_at(_BY_KIND, kind), F.lit(0.0)))
