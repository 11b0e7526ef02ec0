import numpy as np
import pytest

from sparkrec.ingest.simulator import Dirt, SimulatorOptions, behaviour, catalogue, dirt
from sparkrec.ingest.simulator.behaviour import DAY, NONE

pytestmark = pytest.mark.unit

OPTIONS = SimulatorOptions(
    users=300, items=200, days=30, events=20_000,
    dirt=Dirt(duplicates=0.03, near_duplicates=0.02, late=0.04, malformed=0.01, wrong_types=0.02,
              impossible_times=0.01, unknown_items=0.02, missing_prices=0.05),
)  # fmt: skip
CLEAN = behaviour.events(OPTIONS, catalogue.build(OPTIONS), behaviour.users(OPTIONS, 0), 0)
SOILED = dirt.soil(CLEAN, OPTIONS, 0)
N = len(CLEAN["time"])


def of(kind: int) -> dict[str, np.ndarray]:
    rows = SOILED["dirt"] == kind
    return {name: values[rows] for name, values in SOILED.items()}


def test_shares_are_as_asked_for() -> None:
    for kind, name in enumerate(dirt.KINDS):
        if name in ("clean", "unknown_items", "missing_prices", "late"):
            continue  # of those, only events that have an item, a price, a later day
        assert len(of(kind)["id"]) / N == pytest.approx(getattr(OPTIONS.dirt, name), rel=0.25)
    assert len(of(dirt.UNKNOWN_ITEM)["id"]) > 0
    assert len(of(dirt.MISSING_PRICE)["id"]) > 0


def test_no_dirt_leaves_everything_as_it_was() -> None:
    none = Dirt(**dict.fromkeys(Dirt.model_fields, 0))
    clean = dirt.soil(CLEAN, OPTIONS.model_copy(update={"dirt": none}), 0)
    assert (clean["dirt"] == dirt.CLEAN).all()
    assert (clean["arrival"] == CLEAN["time"] // DAY).all()
    assert all(np.array_equal(clean[name], CLEAN[name]) for name in CLEAN)


def test_what_each_kind_does() -> None:
    day = CLEAN["time"] // DAY
    late = of(dirt.LATE)
    assert (late["arrival"] > day[late["id"]]).all()
    assert (SOILED["arrival"] < OPTIONS.days).all()
    twice = of(dirt.DUPLICATE)
    first = {name: SOILED[name][:N][twice["id"]] for name in SOILED}
    assert all(np.array_equal(first[name], twice[name]) for name in SOILED if name != "dirt")
    assert (first["dirt"] == dirt.CLEAN).all()
    nearly = of(dirt.NEAR_DUPLICATE)
    gap = nearly["time"] - SOILED["time"][nearly["id"] - N]
    assert ((gap > 0) & (gap < 1000)).all()
    assert (of(dirt.MISSING_PRICE)["price"] == NONE).all()
    assert (of(dirt.UNKNOWN_ITEM)["item"] != NONE).all()
    years = 1970 + (of(dirt.IMPOSSIBLE_TIME)["time"] / DAY + OPTIONS.start.toordinal() - 719_163) / 365.25
    assert (((years >= 1970) & (years < 1970.1)) | ((years > 2098) & (years < 2100))).all()
