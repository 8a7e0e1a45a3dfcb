"""The step-by-step table and the pass that a token dates from."""

from dataclasses import replace

import pytest

from whisfusion_asr.report.decoded import Vocabulary, read_decoded
from whisfusion_asr.report.steps import finalised, read_trace, steps_section
from whisfusion_asr.scoring import get_normalizer

LETTERS = ["<eos>", "a", "b", "c", "d", "e"]
NONE = get_normalizer("none")
VOCABULARY = Vocabulary(LETTERS, lambda ids: " ".join(LETTERS[i] for i in ids))
A, B, C, D, E = range(1, 6)
TRACE = [
    [[A, C, 0, 0], [E, 0, 0, 0]],  # "a c", "e"
    [[A, B, C, 0], [A, B, 0, B]],  # "a b c", "a b": the b behind the end is no text
]


def traced(tmp_path, sets, **more):
    """One utterance `a b c` whose candidates grow as in TRACE."""
    candidates = [sets.candidate("a b c", 0.5), sets.candidate("a b", 0.4)]
    line = sets.record("u1", 1.0, candidates, **{"trace": TRACE} | more)
    decoded, data = sets.write(tmp_path, [line], {"u1": "a b c"})
    return read_decoded(tmp_path / decoded, tmp_path / data).utterances


def test_table_by_hand(tmp_path, sets):
    sure = [[0.5, 0.1, 0.3, 0.9], [0.7, 0.1, 0.9, 0.9]]
    line = {"trace": [{"guess": guess, "confidence": sure} for guess in TRACE]}
    rows = steps_section(traced(tmp_path, sets, **line), VOCABULARY, NONE)["passes"]
    # pass 1: "a c" lacks b; "e" is a substitution and two deletions
    assert rows[0]["chosen_wer"] == pytest.approx(100 / 3)
    assert rows[0]["mean_wer"] == pytest.approx(100 * 2 / 3)
    assert rows[0]["oracle_wer"] == pytest.approx(100 / 3)
    assert rows[0]["changed_percent"] == 100.0
    assert rows[0]["confidence"] == pytest.approx((0.5 + 0.1 + 0.3 + 0.7 + 0.1) / 5)  # text and first end
    # pass 2: slots up to the later end: 4 of row 0 (2 changed), 3 of row 1 (2 changed)
    assert rows[1] == {"pass": 2, "chosen_wer": 0.0, "mean_wer": pytest.approx(100 / 6), "oracle_wer": 0.0,
                       "confidence": pytest.approx((0.5 + 0.1 + 0.3 + 0.9 + 0.7 + 0.1 + 0.9) / 7),
                       "changed_percent": pytest.approx(100 * 4 / 7)}


def test_confidence_is_not_needed(tmp_path, sets):
    rows = steps_section(traced(tmp_path, sets), VOCABULARY, NONE)["passes"]
    assert [row["confidence"] for row in rows] == [None, None]


def test_pass_of_each_token(tmp_path, sets):
    (utterance,) = traced(tmp_path, sets)
    assert finalised(read_trace(utterance, VOCABULARY), VOCABULARY, 0) == [1, 2, 2]
    assert finalised(read_trace(utterance, VOCABULARY), VOCABULARY, 1) == [2, 2]


def test_rows_of_pieces_are_read_as_rows_of_ids(tmp_path, sets):
    """As the decode command writes a trace: what was shown, and what the network made of it, for people to read."""
    names = [*LETTERS, "<mask>"]
    pieces = [[" ".join(names[token] for token in row) for row in rows] for rows in TRACE]
    shown = [["<mask> <mask> <mask> <mask>"] * 2] * 2
    line = {"trace": [{"shown": old, "guess": new} for old, new in zip(shown, pieces, strict=True)]}
    (utterance,) = traced(tmp_path, sets)
    by_ids = read_trace(utterance, VOCABULARY)
    assert read_trace(replace(utterance, record=utterance.record | line), VOCABULARY) == by_ids
    assert by_ids.canvases == TRACE and by_ids.confidence == []
    assert VOCABULARY.canvas("a <mask>") == [A, 6]


PRUNED = [
    {"rows": [0, 1, 2], "guess": [[A, 0], [B, 0], [C, 0]], "confidence": [[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]]},
    {"rows": [0, 2], "guess": [[A, B], [C, D]], "confidence": [[0.4, 0.4], [0.5, 0.5]]},
    {"rows": [2], "guess": [[C, E]], "confidence": [[0.6, 0.6]]},
]


def test_a_candidate_that_was_dropped_keeps_its_last_state(tmp_path, sets):
    """Three candidates, of which the passes leave two and one: the last one of the first pass is chosen."""
    line = sets.record("u1", 1.0, [sets.candidate("c e", 0.6)], trace=PRUNED, kept=[2])
    decoded, data = sets.write(tmp_path, [line], {"u1": "c e"})
    utterances = read_decoded(tmp_path / decoded, tmp_path / data).utterances
    trace = read_trace(utterances[0], VOCABULARY)
    assert trace.canvases == [[[A, 0], [B, 0], [C, 0]], [[A, B], [B, 0], [C, D]], [[A, B], [B, 0], [C, E]]]
    assert trace.confidence[2] == [[0.4, 0.4], [0.2, 0.2], [0.6, 0.6]]
    assert (trace.chosen, finalised(trace, VOCABULARY, 0)) == (2, [1, 3])
    rows = steps_section(utterances, VOCABULARY, NONE)["passes"]
    assert [row["chosen_wer"] for row in rows] == [50.0, 50.0, 0.0]
    assert rows[2]["confidence"] == pytest.approx((4 * 0.4 + 4 * 0.2 + 4 * 0.6) / 12)


def test_a_trace_that_does_not_tell_who_was_dropped_is_not_read(tmp_path, sets):
    (utterance,) = traced(tmp_path, sets, trace=[each["guess"] for each in PRUNED])
    assert read_trace(utterance, VOCABULARY) is None
    assert "does not tell which candidates were dropped" in steps_section([utterance], VOCABULARY, NONE)["missing"]


def test_a_token_that_comes_back_dates_from_its_return(tmp_path, sets):
    line = sets.record("u1", 1.0, [sets.candidate("a", 0.5)], trace=[[[A, 0]], [[B, 0]], [[A, 0]]])
    decoded, data = sets.write(tmp_path, [line], {"u1": "a"})
    (utterance,) = read_decoded(tmp_path / decoded, tmp_path / data).utterances
    assert finalised(read_trace(utterance, VOCABULARY), VOCABULARY, 0) == [3]


def test_an_utterance_that_was_done_earlier_keeps_its_state(tmp_path, sets):
    lines = [sets.record("u1", 1.0, [sets.candidate("a", 0.5)], trace=[[[A, 0]]]),
             sets.record("u2", 1.0, [sets.candidate("b", 0.5)], trace=[[[A, 0]], [[B, 0]]])]
    decoded, data = sets.write(tmp_path, lines, {"u1": "a", "u2": "b"})
    rows = steps_section(read_decoded(tmp_path / decoded, tmp_path / data).utterances, VOCABULARY, NONE)["passes"]
    assert [row["chosen_wer"] for row in rows] == [50.0, 0.0]
    assert rows[1]["changed_percent"] == 25.0  # u1's two slots stayed, one of u2's two changed


def test_the_prefix_is_no_text():
    spec = Vocabulary(LETTERS, str, eos_id=0, prefix=1)
    assert spec.emitted([E, A, B, 0, C]) == [A, B]
    assert spec.emitted([E, A]) == [A]
    assert (spec.piece(A), spec.piece(6)) == ("a", "#6")


def test_without_a_trace_the_section_says_how_to_get_one(here):
    utterances = read_decoded("exp/x/decode_pdd/test", "data/test").utterances
    assert "--trace true" in steps_section(utterances, VOCABULARY, NONE)["missing"]


def test_without_tokens_the_section_names_the_file(tmp_path, sets):
    assert "config.yaml has no token_list" in steps_section(traced(tmp_path, sets), None, NONE)["missing"]
