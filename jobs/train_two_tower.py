"""train_two_tower: gold sequences and items → the two-tower model, under Horovod on Spark."""

from sparkrec import schemas
from sparkrec.cli import run_job
from sparkrec.models import two_tower
from sparkrec.pipeline import Run
from sparkrec.training import driver, supervisor
from sparkrec.training.preflight import preflight


def train_two_tower(run: Run) -> None:
    """Gold → the two-tower model: one process a rank, from the checkpoint if a training was interrupted.

    With ``two_tower.warm_start`` it begins with an earlier run's model and is trained on what is new. Nothing is done
    where no list is made with it.
    """
    if not run.settings.uses(two_tower.NAME):
        run.say("no list asks for two_tower: there is nothing to train")
        return
    preflight(run)
    versions = {table: run.pin(table) for table in (schemas.GOLD_SEQUENCES, schemas.GOLD_ITEMS)}
    plan, recorded = driver.make_plan(run, versions), driver.recorded(run)
    run.release_session()  # the ranks need the slots
    run.say(f"starting {plan.settings.ranks} rank(s); what they print goes to {plan.path('launch.log')}")
    result = supervisor.train(plan, driver.Listener(run), run.say, recorded)
    run.say(f"variables are equal on all {len(result['ranks'])} ranks after the last step: {result['hash']}")
    run.tracker.artifact(plan.path("model"), "model")
    run.count(rows_in=plan.sequences.rows, parameters=result["parameters"], epochs=result["epochs"])
    if warm := result["warm_start"]:
        grown = {f"new_rows_{table}": rows for table, rows in warm["new_rows"].items()}
        run.count(**grown, **{name: warm[name] for name in ("new_users", "new_targets", "replayed_targets")})
    run.detail(two_tower=result)


if __name__ == "__main__":
    run_job(train_two_tower)
