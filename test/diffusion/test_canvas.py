"""Canvas: what training lays out is what decoding reads back, and both agree on its length."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whisfusion_asr.diffusion.canvas import CanvasRule, CanvasSpec, emitted_tokens, fill_canvas
from whisfusion_asr.errors import UserError

VOCAB = 9
PLAIN = CanvasSpec(VOCAB)  # eos 0, no bos
RELEASED = CanvasSpec(VOCAB, eos_id=2, bos_id=1)
SPOKEN = CanvasSpec(VOCAB, languages=(3, 4))  # two languages
texts = st.lists(st.lists(st.sampled_from([3, 4, 5, 6, 7, 8]), max_size=12), min_size=1, max_size=5)


def padded(rows: list[list[int]], junk: int = -1) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows as ESPnet's collation gives them: (B, N) filled up with `junk`, and lengths (B,)."""
    width = max(len(row) for row in rows)
    table = torch.tensor([row + [junk] * (width - len(row)) for row in rows], dtype=torch.int64)
    return table.reshape(len(rows), width), torch.tensor([len(row) for row in rows])


def test_spec_names_the_ids_beyond_the_vocabulary():
    assert (PLAIN.mask_id, PLAIN.prefix) == (9, 0)
    assert (RELEASED.mask_id, RELEASED.prefix) == (9, 1)
    assert (SPOKEN.mask_id, SPOKEN.prefix) == (9, 1) and CanvasSpec(VOCAB, 2, 1, (3, 4)).prefix == 2


def test_fill_by_hand():
    text, lengths = padded([[5, 6, 7], [8]])
    assert fill_canvas(text, lengths, 5, PLAIN).tolist() == [[5, 6, 7, 0, 0], [8, 0, 0, 0, 0]]
    assert fill_canvas(text, lengths, 5, RELEASED).tolist() == [[1, 5, 6, 7, 2], [1, 8, 2, 2, 2]]


def test_a_language_stands_in_front_of_its_text_behind_bos():
    text, lengths = padded([[5, 6], [5, 6]])
    spoken = torch.tensor([4, 3])
    assert fill_canvas(text, lengths, 4, SPOKEN, spoken).tolist() == [[4, 5, 6, 0], [3, 5, 6, 0]]
    both = CanvasSpec(VOCAB, eos_id=2, bos_id=1, languages=(3, 4))
    canvas = fill_canvas(text, lengths, 5, both, spoken)
    assert canvas.tolist() == [[1, 4, 5, 6, 2], [1, 3, 5, 6, 2]]
    assert emitted_tokens(canvas[0].tolist(), both) == [2, 3]
    with pytest.raises(UserError, match="a text of 4 tokens does not fit a canvas of 3"):
        fill_canvas(text, lengths, 3, both, spoken)


@pytest.mark.parametrize(("spec", "languages", "message"), [
    (SPOKEN, None, r"language token None: this model has \[3, 4\]"),
    (SPOKEN, torch.tensor([5]), r"language token 5: this model has \[3, 4\]"),
    (PLAIN, torch.tensor([3]), "language token 3: this model has no languages"),
])
def test_a_language_that_the_model_does_not_have(spec, languages, message):
    with pytest.raises(UserError, match=message):
        fill_canvas(*padded([[5, 6]]), 6, spec, languages)


def test_a_text_may_fill_the_canvas_to_the_last_slot():
    text, lengths = padded([[5, 6, 7]])
    assert fill_canvas(text, lengths, 3, PLAIN).tolist() == [[5, 6, 7]]
    assert fill_canvas(text, lengths, 4, RELEASED).tolist() == [[1, 5, 6, 7]]


def test_a_table_wider_than_the_canvas_is_cut_where_nothing_is_lost():
    assert fill_canvas(torch.tensor([[5, 6, -1, -1, -1]]), torch.tensor([2]), 3, PLAIN).tolist() == [[5, 6, 0]]


@settings(deadline=None, max_examples=60)
@given(rows=texts, slack=st.integers(0, 5), spec=st.sampled_from([PLAIN, RELEASED]), junk=st.sampled_from([-1, 0, 7]),
       after_end=st.sampled_from(["cut", "skip"]))
def test_emitted_tokens_undo_fill_canvas(rows, slack, spec, junk, after_end):
    text, lengths = padded(rows, junk)
    length = int(lengths.max()) + spec.prefix + slack
    canvas = fill_canvas(text, lengths, length, spec)
    assert canvas.shape == (len(rows), length)
    for row, wanted in zip(canvas.tolist(), rows, strict=True):
        assert [row[i] for i in emitted_tokens(row, spec, after_end)] == wanted


def test_fill_does_not_depend_on_the_order_of_the_batch():
    text, lengths = padded([[5, 6, 7], [8], []])
    order = torch.tensor([2, 0, 1])
    assert torch.equal(fill_canvas(text, lengths, 6, PLAIN)[order], fill_canvas(text[order], lengths[order], 6, PLAIN))


def test_fill_leaves_its_input_alone():
    text, lengths = padded([[5, 6], [8]])
    before = text.clone()
    fill_canvas(text, lengths, 6, RELEASED)
    assert torch.equal(text, before)


@pytest.mark.parametrize(("spec", "length"), [(PLAIN, 2), (RELEASED, 3)])
def test_a_text_longer_than_the_canvas_is_the_users_error(spec, length):
    text, lengths = padded([[5, 6, 7]])
    with pytest.raises(UserError, match=rf"a text of {3 + spec.prefix} tokens does not fit a canvas of {length}"):
        fill_canvas(text, lengths, length, spec)


def test_emitted_tokens_after_an_inner_end():
    row = [1, 5, 2, 6, 2, 7]
    assert emitted_tokens(row, RELEASED) == [1]
    assert emitted_tokens(row, RELEASED, "cut") == [1]
    assert emitted_tokens(row, RELEASED, "skip") == [1, 3, 5]
    assert emitted_tokens([2, 2], CanvasSpec(VOCAB, eos_id=2)) == []


def test_decoding_length_of_each_rule():
    assert CanvasRule("fixed", length=256).decoding_length(RELEASED, frames=1500, count=20) == 256
    assert CanvasRule("count", margin=4).decoding_length(PLAIN, frames=100, count=20) == 24
    assert CanvasRule("count", margin=4).decoding_length(RELEASED, frames=100, count=20) == 25
    assert CanvasRule("frames", margin=2, tokens_per_frame=0.25).decoding_length(PLAIN, frames=101, count=None) == 28


def test_training_length_is_fixed_or_fitted_to_the_longest():
    lengths = torch.tensor([3, 7, 5])
    assert CanvasRule("fixed", length=16).training_length(PLAIN, lengths, None, seed=3) == 16
    for spec, least in ((PLAIN, 7), (RELEASED, 8)):
        drawn = {CanvasRule("count", margin=3).training_length(spec, lengths, None, seed) for seed in range(40)}
        assert drawn == {least + 1, least + 2, least + 3}, "1..margin slots beyond the longest text, all of them"
    expected = torch.tensor([2, 9, 4])
    drawn = {CanvasRule("count", margin=3).training_length(PLAIN, lengths, expected, seed) for seed in range(40)}
    assert drawn == {10, 11, 12}, "a larger expectation than the text makes room for itself"


def test_training_length_depends_on_the_seed_only():
    rule, lengths = CanvasRule("frames", margin=50), torch.tensor([4])
    first = [rule.training_length(PLAIN, lengths, None, seed) for seed in range(8)]
    torch.manual_seed(123)
    assert first == [rule.training_length(PLAIN, lengths, None, seed) for seed in range(8)]


@pytest.mark.parametrize("fit", ["fixed", "count", "frames"])
@pytest.mark.parametrize("spec", [PLAIN, RELEASED])
def test_decoding_never_meets_a_canvas_that_training_could_not_draw(fit, spec):
    rule = CanvasRule(fit, length=30, margin=4, tokens_per_frame=0.2)
    frames, count = 50, 10
    expected = rule.expected(torch.tensor([frames]), torch.tensor([count]))
    drawn = {rule.training_length(spec, torch.tensor([count]), expected, seed) for seed in range(60)}
    assert max(drawn) == rule.decoding_length(spec, frames, count)


def test_expectations_per_utterance():
    frames, counts = torch.tensor([10, 21]), torch.tensor([3, 4])
    assert CanvasRule("frames", tokens_per_frame=0.5).expected(frames, counts).tolist() == [5, 11]
    assert CanvasRule("count").expected(frames, counts).tolist() == [3, 4]
    assert CanvasRule("fixed").expected(frames, counts) is None
    assert CanvasRule("count").expected(frames, None) is None
    assert CanvasRule("frames").expected(None, counts) is None


def test_wrong_settings_are_named():
    with pytest.raises(UserError, match="canvas_conf.fit: 'bucket' is unknown; expected .*, frames or first_pass"):
        CanvasRule("bucket")
    with pytest.raises(UserError, match="length 0 and margin 4 must be at least 1"):
        CanvasRule("fixed", length=0)
    with pytest.raises(UserError, match="margin 0"):
        CanvasRule("count", margin=0)


def test_count_without_a_count_names_both_remedies():
    with pytest.raises(UserError, match="needs a CTC head; set ctc: ctc_head or fit: frames"):
        CanvasRule("count").decoding_length(PLAIN, frames=10, count=None)


def test_a_text_too_long_for_the_fixed_canvas_is_named_with_the_key():
    rule = CanvasRule("fixed", length=8)
    assert rule.training_length(PLAIN, torch.tensor([8]), None, 0) == 8
    with pytest.raises(UserError, match=r"text of 9 tokens .* canvas of 8.*model_conf.canvas_conf.length"):
        rule.training_length(RELEASED, torch.tensor([8]), None, 0)
