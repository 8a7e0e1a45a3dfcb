"""Normalisers."""

import pytest

from whisfusion_asr.errors import UserError
from whisfusion_asr.scoring import NORMALIZERS, get_normalizer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", "hello world"),
        ("Don't 'quote' the dogs' bowl", "don't quote the dogs bowl"),
        ("it’s", "it's"),
        ("rock 'n' roll", "rock n roll"),
        ("well-known -- ÄRGER", "well known ärger"),
        ("a_b (c) [d] ♪ $5 3.5%", "a b c d 5 3 5"),
        ("'' ' ''", ""),
        ("Привет, МИР! 你好。", "привет мир 你好"),
        ("cafe\u0301", "caf\u00e9"),
    ],
)
def test_basic(text, expected):
    assert get_normalizer("basic")(text) == expected


def test_none_changes_nothing():
    assert get_normalizer("none")("  A, b ") == "  A, b "


@pytest.mark.parametrize("name", NORMALIZERS)
def test_normalising_twice_is_normalising_once(name):
    normalize = get_normalizer(name)
    for text in ("It's A 'Test', isn't it? İ ß ﬁ", "x'y''z"):
        assert normalize(normalize(text)) == normalize(text)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match="normalizer 'basics' is unknown: expected one of none, basic"):
        get_normalizer("basics")
