"""One toy corpus for all trainings of this folder."""

from pathlib import Path

import pytest
from toy import write_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of the toy corpus."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))
