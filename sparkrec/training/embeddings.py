"""The tables that are updated row by row, replicated or sharded, behind one interface: lookup, collect, apply.

Tables that are updated whole are variables of the dense optimizer; their gradients travel with the dense buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from sparkrec.config import TwoTower
from sparkrec.training.checkpoint import Part
from sparkrec.training.exchange import Exchange, Merge, Route
from sparkrec.training.optimizer import ROW_RULES, Decay
from sparkrec.training.placement import SHARDED, SPARSE, Placement
from sparkrec.training.rows import Touched
from sparkrec.training.tables import Store, initial_rows


@dataclass(frozen=True)
class Update:
    """Rows of a store, distinct, and the sum of their gradients over all ranks, [n, d]."""

    store: Store
    slots: np.ndarray
    gradient: tf.Tensor


class Embeddings:
    """Rows of all tables that are not dense."""

    def __init__(
        self,
        settings: TwoTower,
        tables: Mapping[str, int],
        placement: Mapping[str, Placement],
        decay: Decay | None,
        exchange: Exchange,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings, self._tables, self._exchange, self._alive = settings, tables, exchange, alive
        collective = exchange.collective

        def store(kind: Placement, rank: int, size: int) -> Store | None:
            own = {name: rows for name, rows in tables.items() if placement[name] == kind}
            rule = ROW_RULES[settings.table_optimizer]()
            return Store(own, settings.width, rule, decay, rank, size) if own else None

        self.replicated = store(SPARSE, 0, 1)
        self.sharded = store(SHARDED, collective.rank, collective.size)
        self.reset()

    @property
    def stores(self) -> list[Store]:
        return [store for store in (self.replicated, self.sharded) if store]

    def initial(self, name: str) -> np.ndarray:
        """A whole table's first rows, for tables that are dense."""
        return initial_rows(self._settings.seed, name, np.arange(self._tables[name]), self._settings.width)

    def reset(self) -> None:
        """Untrained."""
        for store in self.stores:
            store.reset(self._settings.seed, self._alive)

    def routes(self, touched: Touched, ahead: bool = False) -> dict[Store, Route]:
        """The ways by which the touched rows of stores elsewhere come. All ranks call it together."""
        shared = [store for store in self.stores if store.size > 1]
        return {store: self._exchange.route(store, own, ahead) for store in shared if (own := _of(store, touched))}

    def merges(self, touched: Touched, routes: Mapping[Store, Route]) -> dict[Store, Merge]:
        """How the gradients of all ranks will be added up, sent ahead; of one rank nothing is."""
        merges = {}
        for store in self.stores if self._exchange.collective.size > 1 else []:
            route, own = routes.get(store), _of(store, touched)
            slots = route.asked if route else self._exchange.touched_by_all(store, own)
            merges[store] = Merge.of(slots, store.scratch)
        return merges

    def lookup(
        self, touched: Touched, routes: Mapping[Store, Route], shipped_after: int | None = None
    ) -> dict[str, tf.Tensor]:
        """The values of the touched rows, [u, d] each.

        ``shipped_after`` : the rows that are evaluated and served after so many steps. All ranks call it together.
        """
        values: dict[str, tf.Tensor] = {}
        for store in self.stores:
            own = _of(store, touched)

            def gather(slots: np.ndarray, store: Store = store) -> tf.Tensor:
                return store.gather(slots) if shipped_after is None else store.shipped(slots, shipped_after)

            if store.size == 1:
                values |= {name: gather(store.slot(name, rows)) for name, rows in own.items()}
            elif own:
                answer = gather(routes[store].asked)
                exact = shipped_after is not None  # what is served is the owner's rows, on any number of ranks
                found = self._exchange.rows(routes[store], answer, exact)
                values |= dict(zip(own, tf.split(found, [len(rows) for rows in own.values()]), strict=True))
        return values

    def collect(
        self,
        touched: Touched,
        routes: Mapping[Store, Route],
        merges: Mapping[Store, Merge],
        gradients: Mapping[str, tf.Tensor],
    ) -> list[Update]:
        """What every rank's gradients come to: all rows of a replicated store, this rank's of a sharded one."""
        updates = []
        for store in self.stores:
            own = _of(store, touched)
            if not merges:  # one rank
                updates += [Update(store, store.slot(name, rows), gradients[name]) for name, rows in own.items()]
                continue
            merge, gradient = merges[store], tf.concat([gradients[name] for name in own], axis=0)
            if store in routes:
                sums = self._exchange.home(store, routes[store], merge, own, gradient)
            else:
                sums = self._exchange.everywhere(store, merge, own, gradient)
            updates.append(Update(store, merge.slots, sums))
        return updates

    def apply(self, updates: list[Update], scale: float, rate: float, step: int) -> None:
        for update in updates:
            update.store.apply(update.slots, update.gradient, scale, rate, step)

    def squares(self, updates: list[Update]) -> float:
        """The sum of squares of all gradients: what is replicated counts once, what is sharded on every rank."""
        total = 0.0
        for update in updates:
            square = np.asarray([tf.reduce_sum(tf.square(update.gradient))], np.float64)
            total += float((self._exchange.collective.allreduce(square) if update.store is self.sharded else square)[0])
        return total

    def state(self, sharded: bool) -> Iterator[Part]:
        """``kind/table``: this rank's part of every array, of a replicated table the whole."""
        store = self.sharded if sharded else self.replicated
        if not store:
            return
        for name in store.tables:
            for array in store.arrays:
                shape = store.shape(name, array)
                yield Part(f"{array}/{name}", self._tables[name], shape, store.read(name, array))

    def restore(self, read: Callable[[str, np.ndarray | None], np.ndarray]) -> None:
        """``read(name, rows)`` gives rows of an array of ``state``."""
        for store in self.stores:
            for name in store.tables:
                for rows in store.own_rows(name):
                    self._alive()
                    for array in store.arrays:
                        store.write(name, array, rows, read(f"{array}/{name}", rows))


def _of(store: Store, touched: Touched) -> Touched:
    return {name: touched[name] for name in store.tables if name in touched}
