"""audience: the items of a campaign → the users whom each of them suits best."""

from __future__ import annotations

from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.cli import run_job
from sparkrec.pipeline import Run
from sparkrec.retrieval import campaign, catalogue, products, rules
from sparkrec.retrieval import traits as item_traits
from sparkrec.retrieval.reranking import Policy


def audience(run: Run) -> None:
    """For each item of a campaign the users whom it suits best, under the rules of recommend."""
    settings, gold, name = run.settings.recommend, run.read(schemas.GOLD_ITEMS), run.arguments["campaign"]
    model = campaign.model(run)
    named = rules.read_lists(run)
    shelf = rules.offered(gold, settings, named)
    wanted = campaign.items(run, shelf)
    traits = item_traits.publish(rules.item_traits(gold, settings)) if rules.needs_traits(settings) else None
    place = {c.RUN_ID: run.run_id, c.MODEL: model}
    matrix = catalogue.publish(catalogue.stocked(shelf), run.read(schemas.VECTORS_ITEMS, place), model)
    found = products.audience(
        rules.users(run, named),
        run.read(schemas.VECTORS_USERS, place),
        wanted,
        matrix,
        run.arguments["top"],
        Policy(settings, traits),
    )
    asked = run.spark.createDataFrame([(index,) for index in wanted.tolist()], f"{c.ITEM_INDEX} int")
    names = shelf.select(c.ITEM_INDEX, c.ITEM_ID).join(F.broadcast(asked), c.ITEM_INDEX)  # few: the shelf may be large
    rows = found.join(F.broadcast(names), c.ITEM_INDEX).withColumn(c.MODEL, F.lit(model))
    written = run.write(
        schemas.AUDIENCES, rows.drop(c.ITEM_INDEX, c.USER_INDEX), {c.RUN_ID: run.run_id, c.CAMPAIGN: name}
    )
    run.count(items=len(wanted), rows=written)


if __name__ == "__main__":
    run_job(audience)
