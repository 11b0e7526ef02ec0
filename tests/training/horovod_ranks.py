"""What each process of test_horovod.py runs: a conversation, and the few, trained; rank 0 saves what came of it."""

from __future__ import annotations

import json
import sys
from contextlib import closing

import numpy as np
from conversations import two_at_once
from few import make, variables
from recording import Recording

from sparkrec.config import TwoTower
from sparkrec.training.collective import Horovod
from sparkrec.training.worker import configure_tensorflow


def main(recipes: str, out: str) -> None:
    configure_tensorflow(1)
    collective = Horovod()
    saved = {"said": json.dumps([two_at_once(collective) for _ in range(20)])}
    for name, recipe in json.loads(recipes).items():
        settings = TwoTower.model_validate(recipe | {"ranks": collective.size})
        recording = Recording(collective)
        trainer, loader = make(settings, recording)
        steps = (loader.step(*divmod(step, loader.steps_per_epoch)) for step in range(30))
        with closing(trainer.ahead(steps)) as prepared:
            losses = [trainer.step(step, number, 30)[:2] for number, step in enumerate(prepared)]
        saved[f"{name}/rows"] = json.dumps(sorted({kind for kind, _ in recording.rows()}))
        trainer.check_equal("at the end")
        saved |= {f"{name}/{key}": value for key, value in variables(trainer).items()} | {f"{name}/losses": losses}
    if collective.rank == 0:
        np.savez(out, **saved)
    collective.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
