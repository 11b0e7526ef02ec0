"""Gradient-boosted trees by LightGBM (Ke et al., NeurIPS 2017): log loss, so that a score is a log-odds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparkrec.config.ranker import Ranker
from sparkrec.ranking.examples import FIT, STOP, Examples


class Trees:
    """``text`` is the model as LightGBM writes it: it can be read, moved, and opened by other languages."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._booster: Any = None

    def scores(self, features: NDArray[np.float32], users: NDArray[np.float32], items: NDArray[np.float32]) -> NDArray:
        """``[P]`` log-odds. The vectors are not looked at."""
        if self._booster is None:
            import lightgbm

            self._booster = lightgbm.Booster(model_str=self.text)
        if not len(features):
            return np.zeros(0)
        found: NDArray = self._booster.predict(features, raw_score=True, num_threads=1)
        return found

    def importance(self) -> dict[str, float]:
        """The share of each feature in the gain of all splits, the largest first."""
        import lightgbm

        booster = lightgbm.Booster(model_str=self.text)
        gain = booster.feature_importance("gain")
        named = zip(booster.feature_name(), gain / max(gain.sum(), 1e-12), strict=True)
        return {name: round(float(share), 4) for name, share in sorted(named, key=lambda pair: -pair[1])}

    def __getstate__(self) -> dict[str, Any]:
        return {"text": self.text, "_booster": None}


def fit(parts: dict[str, Examples], names: tuple[str, ...], settings: Ranker) -> tuple[Trees, int]:
    """The trees, and how many: as many as are best for the users of the part :data:`STOP`.

    The same examples and settings give the same trees.
    """
    import lightgbm

    data = {
        name: lightgbm.Dataset(parts[name].features, parts[name].chosen.astype(np.int8), feature_name=list(names))
        for name in (FIT, STOP)
    }
    parameters = {
        "objective": "binary", "metric": "binary_logloss", "num_leaves": settings.leaves, "verbosity": -1,
        "min_data_in_leaf": settings.leaf_rows, "learning_rate": settings.learning_rate, "seed": settings.seed,
        "feature_fraction": 0.8, "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 1.0,
        "num_threads": settings.threads, "deterministic": True, "force_row_wise": True,
    }  # fmt: skip
    quiet = lightgbm.early_stopping(settings.patience, verbose=False)
    booster = lightgbm.train(parameters, data[FIT], settings.rounds, [data[STOP]], callbacks=[quiet])
    rounds = booster.best_iteration or booster.num_trees()
    return Trees(booster.model_to_string(num_iteration=rounds)), rounds
