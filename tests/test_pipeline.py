"""The stage contract: only recorded versions are read, and a run is found by its id."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import handmade
import pytest

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.cli import COMMANDS
from sparkrec.errors import DataError
from sparkrec.jobs.embed import embed
from sparkrec.jobs.train_als import train_als
from sparkrec.jobs.train_two_tower import train_two_tower
from sparkrec.pipeline import STAGES, Run, execute

pytestmark = pytest.mark.spark


def users(run: Run, *names: str) -> Any:
    rows = [(name, i, 1, None, None) for i, name in enumerate(names)]
    return run.spark.createDataFrame(rows, schemas.VOCABULARY_USERS.struct())


def names(run: Run) -> list[str]:
    return sorted(row[c.USER_ID] for row in run.read(schemas.VOCABULARY_USERS).collect())


def writer(*content: str, die: bool = False) -> Callable[[Run], None]:
    def featurize(run: Run) -> None:
        run.count(users=run.write(schemas.VOCABULARY_USERS, users(run, *content)))
        run.detail(note="hello")
        if die:
            raise KeyboardInterrupt

    return featurize


def test_a_stage_that_died_is_invisible_and_a_rerun_heals(make_settings: Callable[..., Any], spark: Any) -> None:
    settings = make_settings()
    execute(writer("a", "b"), Run(settings, "featurize"))
    with pytest.raises(KeyboardInterrupt):
        execute(writer("half", die=True), Run(settings, "featurize"))
    reader = Run(settings, "train_als")
    assert names(reader) == ["a", "b"]
    assert reader.inputs == {"gold.vocabulary_users": 0}
    execute(writer("a", "b", "c"), Run(settings, "featurize"))
    assert names(Run(settings, "train_als")) == ["a", "b", "c"]
    record = Run(settings, "evaluate").records()[-1]
    assert (record[c.STAGE], record[c.COUNTS], record[c.DETAILS]) == ("featurize", {"users": 3}, '{"note": "hello"}')
    assert record[c.CONFIG_HASH] == settings.hash()
    told = reader.lake.read(schemas.AUDIT).orderBy(c.TIME).collect()
    assert [row[c.OUTCOME] for row in told] == ["done", "KeyboardInterrupt", "done"]


def test_what_was_written_last_counts_whoever_began_first(make_settings: Callable[..., Any], spark: Any) -> None:
    """A run that waited for its resources read, and wrote, after one that began later."""
    settings = make_settings()
    waited = Run(settings, "clean", run_id="waited")
    waited.started -= dt.timedelta(minutes=3)
    waited._clock -= 180

    def clean(run: Run) -> None:
        row = dict.fromkeys(schemas.SILVER_ITEMS.column_names) | {c.ITEM_ID: run.run_id}
        run.write(schemas.SILVER_ITEMS, run.spark.createDataFrame([row], schemas.SILVER_ITEMS.struct()))

    execute(clean, Run(settings, "clean", run_id="quick"))
    execute(clean, waited)
    assert [row[c.RUN_ID] for row in Run(settings, "clean").records(any_run=True)] == ["quick", "waited"]
    assert Run(settings, "featurize").pin(schemas.SILVER_ITEMS, newest=True) == 1
    assert Run(settings, "train_als", run_id="quick").pin(schemas.SILVER_ITEMS) == 0, "its own, though it is older"


def test_what_a_model_left_when_it_died_is_not_read_through_another_models_record(
    make_settings: Callable[..., Any], spark: Any
) -> None:
    settings = make_settings()

    def of(model: str, value: float, die: bool = False) -> Callable[[Run], None]:
        def write(run: Run) -> None:
            place = {c.RUN_ID: run.run_id, c.MODEL: model}
            for table in (schemas.VECTORS_ITEMS, schemas.VECTORS_USERS):
                rows = [(*place.values(), 0, "x", [value])]
                run.write(table, spark.createDataFrame(rows, table.struct()), place)
                if die:
                    raise KeyboardInterrupt

        return write

    execute(of("als", 1.0), Run(settings, "train_als"))
    with pytest.raises(KeyboardInterrupt):
        execute(of("als", 2.0, die=True), Run(settings, "train_als"))
    execute(of("two_tower", 3.0), Run(settings, "embed"))
    reader = Run(settings, "recommend")
    for model, value in (("als", 1.0), ("two_tower", 3.0)):
        for table in (schemas.VECTORS_ITEMS, schemas.VECTORS_USERS):
            rows = reader.read(table, {c.RUN_ID: reader.run_id, c.MODEL: model}).collect()
            assert [row[c.VECTOR] for row in rows] == [[value]], (model, table.name)
    assert reader.inputs["vectors.items of als"] == 0


def test_what_recommend_left_when_it_died_is_not_read_through_the_record_of_newcomers(
    make_settings: Callable[..., Any], spark: Any
) -> None:
    settings, table = make_settings(), schemas.RECOMMENDATIONS

    def of(model: str, item: str, die: bool = False) -> Callable[[Run], None]:
        def write(run: Run) -> None:
            row = {c.RUN_ID: run.run_id, c.MODEL: model, c.USER_ID: "u", c.RANK: 1, c.ITEM_ID: item}
            handmade.write(run, table, [row], where={c.RUN_ID: run.run_id, c.MODEL: model})
            if die:
                raise KeyboardInterrupt

        return write

    def shown(where: dict[str, str]) -> set[str]:
        return {row[c.ITEM_ID] for row in Run(settings, "evaluate").read(table, where).collect()}

    done = Run(settings, "recommend")
    execute(of("als", "served"), done)
    with pytest.raises(KeyboardInterrupt):
        execute(of("als", "refused", die=True), Run(settings, "recommend"))
    execute(of("newcomers", "new"), Run(settings, "newcomers"))
    assert shown({}) == shown({c.MODEL: "als"}) == {"served"}
    assert shown({c.MODEL: "newcomers"}) == {"new"}
    assert Run(settings, "publish").pin(table) == done.outputs[table.name]


def test_gold_of_another_run_is_not_taken_but_silver_is(make_settings: Callable[..., Any], spark: Any) -> None:
    settings = make_settings()
    execute(writer("a"), Run(settings, "featurize", run_id="yesterday"))
    with pytest.raises(DataError, match=r"run 'today' needs gold\.vocabulary_users, and no earlier stage"):
        names(Run(settings, "train_als", run_id="today"))

    def clean(run: Run) -> None:
        run.write(schemas.SILVER_ITEMS, spark.createDataFrame([], schemas.SILVER_ITEMS.struct()))

    execute(clean, Run(settings, "clean", run_id="yesterday"))
    assert Run(settings, "featurize", run_id="today").read(schemas.SILVER_ITEMS).count() == 0


def test_every_stage_has_its_job() -> None:
    jobs = Path(__file__).parents[1] / "jobs"
    assert {path.stem for path in jobs.glob("*.py")} == {*STAGES, *COMMANDS, "simulate", "__init__"}
    for stage in (*STAGES, *COMMANDS):
        page = (jobs / f"{stage}.py").read_text()
        assert f"run_job({stage})" in page
        assert len(page.splitlines()) < 120, f"jobs/{stage}.py is longer than a page or two"


@pytest.mark.unit
@pytest.mark.parametrize("job", [train_als, train_two_tower, embed])
def test_a_model_that_no_list_asks_for_is_neither_trained_nor_embedded(job, tmp_path, capsys):
    run = Run(handmade.settings(tmp_path, recommend={"models": ["popularity"]}), job.__name__)
    job(run)  # it would need gold, and there is none
    assert run.outputs == {}
    assert "no list asks for" in capsys.readouterr().err
