"""What a lake holds of persons outside its tables: rows of trained models, and reports that show somebody."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from sparkrec.models import folders
from sparkrec.models.two_tower import exported
from sparkrec.privacy.scan import Needles, below, in_file
from sparkrec.training import checkpoint

_TABLE = "user_id"
#: Folders below ``lake.files``: trained models with their checkpoints, MLflow's copies of them, reports.
_MODELS, _TRACKED, _REPORTS = "models", "mlruns", "reports"
_BLOCK = 4096


def forget_rows(lake: Path, indices: Sequence[int]) -> int:
    """Zeros in the users' rows of every embedding table on disk, with the optimizer's state beside it.

    Checkpoints, sharded or not, exported models and MLflow's copies; returns the files that were changed. Checksums of
    a checkpoint are put right, unless it was damaged before.
    """
    changed = 0
    for folder in sorted({path.parent for path in _arrays(lake)}):
        manifest = _manifest(folder)
        for path in sorted(folder.glob("*.npy")):
            if _is_of_users(path):
                changed += _forget(path, np.asarray(indices, np.int64), manifest)
        if manifest:
            folders.write_json(folder / checkpoint.MANIFEST, manifest, indent=1)
    return changed


def renumber(lake: Path, numbers: Callable[[str, int], int]) -> None:
    """Trained models learn the new numbers of the versions that they were trained on."""
    for path in sorted((lake / _MODELS / "two_tower").glob(f"*/*/{exported.DESCRIPTION}")):
        exported.renumber(path.parent, numbers)


def remove_reports(lake: Path, needles: Needles) -> list[Path]:
    """Delete reports, here and in MLflow's store, that show one of the users; ``evaluate`` makes them anew."""
    found = [path for root in (_REPORTS, _TRACKED) for path in below(lake / root) if path.suffix == ".html"]
    shown = [path for path in sorted(found) if in_file(str(path.absolute()), needles)[1]]
    for path in shown:
        path.unlink()
    return shown


def _arrays(lake: Path) -> Iterator[Path]:
    for root in (_MODELS, _TRACKED):
        yield from (path for path in below(lake / root) if path.suffix == ".npy" and _is_of_users(path))


def _is_of_users(path: Path) -> bool:
    """By the name of the array, which has a row for each user."""
    return _TABLE in path.name.split(".")


def _forget(path: Path, indices: np.ndarray, manifest: dict | None) -> bool:
    whole = manifest is None or manifest["files"].get(path.name) == checkpoint.checksum(path)
    first, step = checkpoint.rows_of(path.name, manifest) if manifest else (0, 1)
    array = np.load(path, mmap_mode="r+")
    rows = indices[indices % step == first] // step
    rows = rows[rows < len(array)]
    touched = bool(len(rows)) and any(array[rows[i : i + _BLOCK]].any() for i in range(0, len(rows), _BLOCK))
    if touched:
        array[rows] = 0
        array.flush()
    del array
    # A wrong checksum over rows that are zeros already: an erasure was killed before it could write the right one.
    if manifest and len(rows) and (whole or not touched):
        manifest["files"][path.name] = checkpoint.checksum(path)
    return touched


def _manifest(folder: Path) -> dict | None:
    path = folder / checkpoint.MANIFEST
    if not path.is_file():
        return None
    content = json.loads(path.read_text())
    return content if isinstance(content, dict) and {"files", "sharded", "ranks"} <= content.keys() else None
