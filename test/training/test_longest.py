"""The longest utterance of a training, and what is said about a damaged record."""

import pytest

from whisfusion_asr.errors import UserError
from whisfusion_asr.training.longest import LONGEST, read_longest, record_longest


def test_what_is_written_is_read(tmp_path):
    assert read_longest(tmp_path) is None
    record_longest(tmp_path, 16.21006)
    assert read_longest(tmp_path) == 16.21


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"seconds": "long"}', '{"seconds": null}'])
def test_a_damaged_record_is_named(tmp_path, content):
    (tmp_path / LONGEST).write_text(content)
    with pytest.raises(UserError, match=f"{LONGEST}: expected a JSON object with a number `seconds`"):
        read_longest(tmp_path)
