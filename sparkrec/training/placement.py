"""Where each embedding table is kept, and why.

replicated_dense    whole on every rank; its gradient is part of the dense buffer; Adam moves every row every step
replicated_sparse   whole on every rank; ranks exchange the rows that they touched; only those are updated
sharded             every W-th row on each of W ranks; rows and gradients travel to and from their owners
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from sparkrec.config import TwoTower
from sparkrec.errors import ConfigError, RetryableError

Placement = Literal["replicated_dense", "replicated_sparse", "sharded"]
DENSE: Placement = "replicated_dense"
SPARSE: Placement = "replicated_sparse"
SHARDED: Placement = "sharded"

#: Elements of a table that costs next to nothing: dense Adam, the best of the optimizers, whatever is touched.
SMALL = 2_000_000
_GB = 1e9


@dataclass(frozen=True)
class Planned:
    """``touched`` : rows a step of one rank, expected; ``gb`` : of one rank, with the optimizer's state."""

    table: str
    rows: int
    touched: int
    placement: Placement
    gb: float
    reason: str


def touched_rows(
    settings: TwoTower, tables: Mapping[str, int], users: int, tokens: float, targets: float
) -> dict[str, int]:
    """Expected distinct rows of each table that one rank touches a step: at most, as if all rows were drawn alike.

    Of all ranks: ``users`` with events; ``tokens`` and ``targets`` of an epoch, with windows of ``max_history``.
    """
    share = min(1.0, settings.batch / max(users, 1)) / settings.ranks
    whole = not (settings.negatives or settings.in_batch or settings.loss == "mse")  # mse: targets and nothing else
    negatives = tables["item_id"] if whole else settings.negatives
    columns = negatives + (targets * share * settings.ranks if settings.in_batch else 0)
    history = tokens * share * (settings.history_keep if settings.mode == "user" else 1)
    items = columns + targets * share + (history if settings.history not in ("none", "mean") else 0)
    draws = {"item_id": items, "history_item": history, "user_id": settings.batch / settings.ranks}
    expected = {name: rows * -np.expm1(-draws.get(name, rows) / max(rows, 1)) for name, rows in tables.items()}
    if negatives >= tables["item_id"]:
        expected["item_id"] = tables["item_id"]
    # An item brings all its features: take it that features repeat no more than items do.
    if "item_feature" in tables:
        expected["item_feature"] = tables["item_feature"] * expected["item_id"] / max(tables["item_id"], 1)
    return {name: int(np.ceil(expected[name])) for name in tables}


def plan(
    settings: TwoTower, tables: Mapping[str, int], touched: Mapping[str, int], ranks: int | None = None
) -> list[Planned]:
    """A placement for each table (name → rows), in the order of the tables.

    Small tables are dense, and large ones that are touched by half or more. The rest is replicated as long as it fits
    into ``memory_gb``, smallest first, and then sharded; users are sharded at once, because that costs nothing: rank
    and owner of a row are the user index modulo the ranks.

    ``ranks`` : how many there are; None: as many as ``settings`` asks for. Those asked for decide where a table is
    kept, so that an elastic training is the same on fewer; those that are there, how much memory it needs.

    Raises
    ------
    ConfigError
        A table that the model does not have is placed, or the tables do not fit whatever is done.
    RetryableError
        They do not fit on so few ranks as are there at the moment.
    """
    unknown = sorted(set(settings.placement) - set(tables))
    if unknown:
        raise ConfigError(
            f"two_tower.placement names {', '.join(unknown)}, and this model's tables are {', '.join(tables)}. "
            "Take the name out."
        )
    chosen: dict[str, Planned] = {}
    for name in sorted(tables, key=lambda name: (name not in settings.placement, tables[name])):
        used = sum(table.gb for table in chosen.values())
        chosen[name] = _place(settings, name, tables[name], touched[name], used)
    there = settings.model_copy(update={"ranks": ranks or settings.ranks})
    planned = [replace(chosen[name], gb=rows_gb(there, rows, chosen[name].placement)) for name, rows in tables.items()]
    total = sum(table.gb for table in planned)
    if total > settings.memory_gb:
        waits = sum(table.gb for table in chosen.values()) <= settings.memory_gb  # as many ranks as were asked for do
        error = RetryableError if waits else ConfigError
        listed = ", ".join(f"{table.table} {table.gb:.2f} ({table.placement})" for table in planned)
        raise error(
            f"The embedding tables need {total:.2f} GB on each of {there.ranks} rank(s), and two_tower.memory_gb "
            f"allows {settings.memory_gb:g}: {listed}. "
            "Raise memory_gb if the machines have it, take more ranks (elastic: no fewer, by min_ranks), or make "
            "two_tower.width smaller."
        )
    return planned


def report(planned: list[Planned]) -> list[str]:
    """The plan as lines of a table."""
    lines = [f"{'table':<14}{'rows':>13}{'touched':>10}{'GB':>8}  {'placement':<18} why"]
    for table in planned:
        numbers = f"{table.rows:>13,}{table.touched:>10,}{table.gb:>8.3f}"
        lines.append(f"{table.table:<14}{numbers}  {table.placement:<18} {table.reason}")
    return lines


def _place(settings: TwoTower, name: str, rows: int, touched: int, used: float) -> Planned:
    gb = {kind: rows_gb(settings, rows, kind) for kind in (DENSE, SPARSE, SHARDED)}

    def planned(kind: Placement, reason: str) -> Planned:
        return Planned(name, rows, touched, kind, gb[kind], reason)

    if name in settings.placement:
        return planned(settings.placement[name], "set by two_tower.placement")
    if rows * settings.width <= SMALL and used + gb[DENSE] <= settings.memory_gb:
        return planned(DENSE, f"small: {rows * settings.width:,} elements")
    if touched * 2 >= rows and used + gb[DENSE] <= settings.memory_gb:
        return planned(DENSE, f"a step touches {touched / rows:.0%} of it")
    if name == "user_id" and settings.ranks > 1:
        return planned(SHARDED, "a user's row lies where the user's events are: nothing is sent")
    if used + gb[SPARSE] <= settings.memory_gb:
        return planned(SPARSE, f"a step touches {touched / rows:.1%} of it")
    return planned(SHARDED, f"whole on a rank: {used + gb[SPARSE]:.2f} GB of memory_gb {settings.memory_gb:g}")


def rows_gb(settings: TwoTower, rows: int, kind: Placement) -> float:
    """Memory on one rank of a table with everything that belongs to its rows."""
    width, average = settings.width, bool(settings.average)
    if kind == DENSE:
        # weights, two moments, the gradient; the average.
        return rows * 4 * width * (4 + average) / _GB
    state = {"adagrad": 1, "lazy_adam": 2 * width + 1, "sgd": 0}[settings.table_optimizer]
    row = 4 * (width + state + average * (width + 1))
    own = int(np.ceil(rows / settings.ranks)) if kind == SHARDED else rows
    return row * own / _GB
