"""The reference pages are those that the code would write today."""

from pathlib import Path

import pytest

from sparkrec import docs

pytestmark = pytest.mark.unit
DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", ["tables", "configuration"])
def test_reference_page_is_up_to_date(page: str) -> None:
    assert (DOCS / f"{page}.md").read_text() == getattr(docs, page)(), "run: make docs"
