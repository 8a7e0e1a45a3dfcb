"""Fixtures of all tests."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real corpora and hard cases: $WHISFUSION_SHARED, or `shared/data` in or above the repository."""
    named = os.environ.get("WHISFUSION_SHARED")
    places = [Path(named)] if named else [folder / "shared" / "data" for folder in (ROOT, *ROOT.parents)]
    for place in places:
        if place.is_dir():
            return place
    pytest.skip(f"no folder shared/data in or above {ROOT.name}; set WHISFUSION_SHARED to run this test")
