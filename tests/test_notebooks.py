"""Every notebook runs from top to bottom."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = [pytest.mark.workers, pytest.mark.slow]
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_notebook_runs(path: Path) -> None:
    """On what ``make demo`` made; where that was never run, the notebook runs it."""
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit notebooks without outputs"
    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(path.parent)}}).execute()
    printed = [
        o["data"]["text/markdown"]
        for cell in notebook.cells
        for o in cell.get("outputs", [])
        if "data" in o and "text/markdown" in o["data"]
    ]
    assert any("raw rows" in text for text in printed)
    assert any("is recommended" in text for text in printed)
