"""The simulated catalogue: what there is, what it costs on which day, whom it pleases. Arrays, an entry an item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparkrec.ingest.simulator.options import SimulatorOptions

#: Width of the latent taste vectors.
WIDTH = 8
#: department → category → what things in it are called.
TREE: dict[str, dict[str, tuple[str, ...]]] = {
    "Garden": {
        "Benches": ("garden bench", "bench", "swing seat"),
        "Planters": ("planter", "flower pot", "window box"),
        "Garden tools": ("spade", "rake", "pruning shears"),
        "Barbecue": ("barbecue", "fire bowl", "grill tongs"),
        "Lanterns": ("lantern", "solar light", "torch"),
    },
    "Kitchen": {
        "Pans": ("frying pan", "saucepan", "casserole"),
        "Knives": ("chef's knife", "bread knife", "knife block"),
        "Baking": ("cake tin", "mixing bowl", "rolling pin"),
        "Coffee": ("coffee pot", "milk jug", "grinder"),
        "Tableware": ("plate", "bowl", "mug"),
    },
    "Living room": {
        "Lamps": ("floor lamp", "table lamp", "reading lamp"),
        "Cushions": ("cushion", "throw", "floor pillow"),
        "Shelves": ("shelf", "bookcase", "wall rack"),
        "Rugs": ("rug", "runner", "doormat"),
        "Clocks": ("wall clock", "alarm clock", "mantel clock"),
    },
    "Office": {
        "Desks": ("desk", "standing desk", "desk extension"),
        "Chairs": ("office chair", "stool", "footrest"),
        "Paper": ("notebook", "diary", "sketch pad"),
        "Storage": ("file box", "drawer unit", "desk tray"),
        "Pens": ("fountain pen", "pencil case", "marker set"),
    },
    "Children": {
        "Building blocks": ("building blocks", "marble run", "train set"),
        "Soft toys": ("teddy bear", "rabbit", "hand puppet"),
        "Games": ("board game", "card game", "puzzle"),
        "Nursery": ("cot blanket", "night light", "mobile"),
        "Outdoor play": ("sandpit set", "kite", "skipping rope"),
    },
    "Sport": {
        "Yoga": ("yoga mat", "yoga block", "bolster"),
        "Running": ("running belt", "headlamp", "water flask"),
        "Cycling": ("pannier", "bicycle bell", "pump"),
        "Camping": ("tent", "sleeping bag", "camping stove"),
        "Swimming": ("swim bag", "goggles", "towel"),
    },
}  # fmt: skip
CATEGORIES = tuple(f"{department} > {name}" for department, names in TREE.items() for name in names)
NOUNS = tuple(nouns for names in TREE.values() for nouns in names.values())
#: Months (0 = January) in which a department sells most.
_PEAKS = {"Garden": 4, "Kitchen": 11, "Living room": 10, "Office": 8, "Children": 11, "Sport": 5}
COLOURS = (
    "Natural", "Charcoal", "Ivory", "Sage", "Ochre", "Navy", "Terracotta", "Plum", "Mint", "Sand", "Coral", "Slate",
)  # fmt: skip
BRANDS = (
    "Northwind", "Alder & Sons", "Kestrel", "Marlow", "Fjordhem", "Papillon", "Tidewater", "Hollis", "Juniper",
    "Vantage", "Brightside", "Moss Lane", "Calder", "Ostrava", "Lumen", "Petrel", "Saffron", "Thornbury", "Ember",
    "Willowbank",
)  # fmt: skip
SERIES = ("Alva", "Bruno", "Cleo", "Dante", "Elin", "Faro", "Greta", "Hugo", "Iris", "Jonas", "Kaia", "Leo")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Catalogue:
    """``n`` items. Every array has n entries, ``vector`` is [n, WIDTH] and ``category_vector`` [categories, WIDTH]."""

    category: Ints
    brand: Ints
    colour: Ints
    noun: Ints
    series: Ints
    arrival: Ints
    base_price: Floats
    log_popularity: Floats
    drift: Floats
    vector: Floats
    category_vector: Floats
    price_change_day: Ints
    price_change: Floats
    promotion_start: Ints
    promotion_size: Floats
    stock_phase: Ints
    stock_period: Ints
    by_category: Ints
    category_end: Floats
    cumulative: Floats

    def price(self, items: Ints, day: Ints) -> Floats:
        """List price on a day, before promotions; broadcasts like numpy."""
        changed = day >= self.price_change_day[items]
        return np.round(self.base_price[items] * np.where(changed, self.price_change[items], 1.0), 2)

    def promotion(self, items: Ints, day: Ints) -> Floats:
        """Discount as a fraction: a week of it for some items, else 0."""
        start = self.promotion_start[items]
        return np.where((day >= start) & (day < start + 7), self.promotion_size[items], 0.0)

    def stock(self, items: Ints, day: Ints) -> Ints:
        """Units: from 60 down to 0 in steps of 20, then restocked; 0 for the last day or two of a cycle only."""
        period = self.stock_period[items]
        position = (day + self.stock_phase[items]) % period / period
        return np.where(position < 0.5, 60, np.where(position < 0.8, 40, np.where(position < 0.96, 20, 0)))

    def candidates(self, rng: np.random.Generator, category: Ints, count: int) -> Ints:
        """For each category ``count`` of its items, drawn by popularity with replacement: [len(category), count]."""
        start = np.concatenate([[0.0], self.category_end])[category]
        width = self.category_end[category] - start
        points = start[:, None] + rng.random((len(category), count)) * width[:, None]
        found = np.searchsorted(self.cumulative, points, side="right")
        return self.by_category[np.minimum(found, len(self.by_category) - 1)]


def build(options: SimulatorOptions) -> Catalogue:
    """The catalogue of these options: the same in every task that asks."""
    rng = np.random.default_rng([options.seed, 1])
    n, categories = options.items, len(CATEGORIES)
    category_vector = unit(rng.normal(size=(categories, WIDTH)))
    # Every category has items, the rest fall where they may.
    category = np.concatenate([np.arange(categories), rng.integers(0, categories, n)])[:n]
    log_popularity = rng.normal(0.0, 1.0, n)
    arrival = np.where(rng.random(n) < 0.12, rng.integers(1, options.days, n), 0)
    arrival[: min(n, categories)] = 0
    by_category = np.lexsort((np.arange(n), category))
    cumulative = np.cumsum(np.exp(log_popularity[by_category]))
    last = np.searchsorted(category[by_category], np.arange(categories), side="right") - 1
    return Catalogue(
        category=category,
        brand=rng.integers(0, len(BRANDS), n),
        colour=rng.integers(0, len(COLOURS), n),
        noun=rng.integers(0, 3, n),
        series=rng.integers(0, len(SERIES), n),
        arrival=arrival,
        base_price=np.round(np.exp(rng.normal(3.0, 0.5, categories)[category] + rng.normal(0, 0.4, n)), 2),
        log_popularity=log_popularity,
        drift=rng.normal(0.0, 0.6, n),
        vector=unit(category_vector[category] + 0.9 * unit(rng.normal(size=(n, WIDTH)))),
        category_vector=category_vector,
        price_change_day=rng.integers(0, 2 * options.days, n),
        price_change=rng.choice([0.85, 0.9, 1.1, 1.2], n),
        promotion_start=np.where(rng.random(n) < 0.3, rng.integers(0, options.days, n), 10 * options.days),
        promotion_size=rng.choice([0.1, 0.2, 0.3], n),
        stock_phase=rng.integers(0, 60, n),
        stock_period=rng.integers(21, 60, n),
        by_category=by_category,
        category_end=np.maximum.accumulate(np.where(last >= 0, cumulative[np.maximum(last, 0)], 0.0)),
        cumulative=cumulative,
    )


def season(month: Floats) -> Floats:
    """Log of how much more a category sells in a month (0 = start of January, may be fractional): [len, categories]."""
    peaks = np.repeat([_PEAKS[department] for department in TREE], [len(names) for names in TREE.values()])
    return 0.8 * np.cos(2 * np.pi * (np.asarray(month)[:, None] - peaks[None, :]) / 12)


def changes(catalogue: Catalogue, items: Ints, days: int) -> dict[str, NDArray[np.generic]]:
    """What a daily export of changes holds for some items: item, day, price, promotion, stock.

    The first row of an item is of the day on which it arrives.
    """
    grid, day = np.meshgrid(items, np.arange(days), indexing="ij")
    price, promotion = catalogue.price(grid, day), catalogue.promotion(grid, day)
    stock = catalogue.stock(grid, day)
    changed = np.zeros(grid.shape, bool)
    for values in (price, promotion, stock):
        changed[:, 1:] |= values[:, 1:] != values[:, :-1]
    arrival = catalogue.arrival[grid]
    rows = (day == arrival) | (changed & (day > arrival))
    columns = {"item": grid, "day": day, "price": price, "promotion": promotion, "stock": stock}
    return {name: values[rows] for name, values in columns.items()}


def unit(vectors: Floats) -> Floats:
    """Each row divided by its length."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
