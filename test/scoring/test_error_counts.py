"""The record of counts."""

from hypothesis import given
from hypothesis import strategies as st

from whisfusion_asr.scoring import ErrorCounts
from whisfusion_asr.scoring.error_rate import percent_text

COUNTS = st.builds(ErrorCounts, *[st.integers(0, 10**6)] * 6)


@given(COUNTS, COUNTS, COUNTS)
def test_adding_is_associative_commutative_and_has_a_zero(a, b, c):
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + ErrorCounts() == a


@given(COUNTS, COUNTS)
def test_everything_derived_from_a_sum_adds(a, b):
    total = a + b
    assert total.errors == a.errors + b.errors
    assert total.reference_length == a.reference_length + b.reference_length


def test_a_corpus_rate_weighs_words_not_utterances():
    short, long = ErrorCounts(substitutions=1, utterances=1), ErrorCounts(correct=9, utterances=1)
    assert (short + long).percent == 10.0  # the mean of the two rates would be 50


def test_no_reference_words_no_rate():
    counts = ErrorCounts(insertions=3, utterances=1, wrong_utterances=1)
    assert counts.percent is None
    assert percent_text(counts.percent) == "-"
    assert counts.wrong_utterance_percent == 100.0
    assert ErrorCounts().wrong_utterance_percent is None


def test_rates_have_two_decimals():
    assert percent_text(ErrorCounts(correct=2, deletions=1).percent) == "33.33"
