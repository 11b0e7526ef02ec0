"""Row groups are dealt out once each, evenly."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkrec.training.manifest import Manifest, Piece, deal

pytestmark = pytest.mark.unit

PIECES = st.lists(st.integers(0, 1000), max_size=30).map(
    lambda rows: [Piece(f"f{i % 3}", i // 3, n) for i, n in enumerate(rows)]
)


@given(pieces=PIECES, ranks=st.integers(1, 6))
def test_every_row_group_goes_to_one_rank_and_none_is_overloaded(pieces, ranks):
    hands = deal(pieces, ranks)
    assert len(hands) == ranks
    assert sorted((p for hand in hands for p in hand), key=str) == sorted(pieces, key=str)
    loads = [sum(p.rows for p in hand) for hand in hands]
    assert max(loads) - min(loads) <= max((p.rows for p in pieces), default=0)


def test_a_manifest_survives_json():
    manifest = Manifest("gold.sequences", 4, deal([Piece("a", 0, 5), Piece("a", 1, 3)], 3))
    assert Manifest.load(json.loads(json.dumps(asdict(manifest)))) == manifest
    assert manifest.rows == 8
