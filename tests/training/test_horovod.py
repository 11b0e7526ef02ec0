"""Two real Horovod processes against one rank: what the fake ranks promise is what Horovod does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conversations import two_at_once
from few import everywhere, run
from ranks import on_ranks

pytestmark = [pytest.mark.workers, pytest.mark.slow]

HERE = Path(__file__).parent
BASE = {"width": 4, "batch": 10, "max_history": 5, "learning_rate": 0.003}
RECIPES = {
    "sparse": BASE | {"placement": everywhere("replicated_sparse"), "negatives": 8},
    "sharded": BASE | {"placement": everywhere("sharded"), "in_batch": True, "average": 0.9, "clip_norm": 0.05},
    "mixed": BASE | {"placement": everywhere("mixed"), "table_optimizer": "lazy_adam", "accumulate": 2},
    "empty ranks": BASE | {"placement": everywhere("sharded"), "batch": 1},
    "halves": BASE | {"placement": everywhere("mixed"), "fp16_rows": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    out = tmp_path_factory.mktemp("horovod") / "two.npz"
    paths = [str(HERE.parents[1]), str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")]
    # horovodrun starts the ranks through a shell, with the PATH's python for its own helpers.
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [
            sys.executable, "-m", "horovod.runner.launch", "--gloo", "-np", "2", "-H", "localhost:2",
            sys.executable, str(HERE / "horovod_ranks.py"), json.dumps(RECIPES), str(out),
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PATH": folders}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return np.load(out)


def test_what_two_processes_say_on_two_channels_at_once_is_not_mixed_up(together):
    assert json.loads(str(together["said"])) == [on_ranks(2, two_at_once)[0]] * 20


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_learn_what_one_learns(together, name):
    losses, weights, _ = run(1, 30, **RECIPES[name])
    halves = name == "halves"
    assert json.loads(str(together[f"{name}/rows"])) == ["int16" if halves else "float32"]
    tolerance = 1e-2 if halves else 1e-5
    np.testing.assert_allclose(together[f"{name}/losses"], losses, rtol=tolerance, atol=tolerance)
    for key, weight in weights.items():
        np.testing.assert_allclose(together[f"{name}/{key}"], weight, atol=tolerance, err_msg=key)
