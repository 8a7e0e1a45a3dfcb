"""Whisper's decoder as a CTC head: slots anchored in time."""

import math
from itertools import product
from pathlib import Path

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from whisfusion_asr.data.tokenizer import load_tokenizer
from whisfusion_asr.errors import UserError
from whisfusion_asr.models.anchored_whisper import AnchoredWhisper, attend_near
from whisfusion_asr.models.build import build_network
from whisfusion_asr.models.ctc_head import greedy_path, greedy_tokens
from whisfusion_asr.models.running import Int8Linear, RunOptions, prepare

LENGTHS = torch.tensor([18, 7, 12])


@pytest.fixture(scope="module")
def pieces(toy_whisper_tokens: Path) -> list[str]:
    return load_tokenizer(toy_whisper_tokens).pieces


def build(folder: Path, pieces: list[str], **conf: object) -> AnchoredWhisper:
    width = WhisperForConditionalGeneration.from_pretrained(folder).config.d_model
    return AnchoredWhisper(width, len(pieces), pieces, str(folder), **conf).eval()


@pytest.fixture
def head(toy_whisper: Path, pieces: list[str]) -> AnchoredWhisper:
    return build(toy_whisper, pieces)


@pytest.fixture
def states(head: AnchoredWhisper) -> torch.Tensor:
    return torch.randn(3, 18, head.decoder.embed.embedding_dim, generator=torch.Generator().manual_seed(1))


def by_formula(head: AnchoredWhisper, states: torch.Tensor, width: float) -> torch.Tensor:
    """Hidden states of the slots of one utterance (T, D), written from the description, head by head."""
    decoder, start = head.decoder, head.decoder.prefix_embed.size(0)
    slots = math.ceil(len(states) / head.frames_per_slot)
    x = torch.cat((decoder.prefix_embed, decoder.mask.expand(slots, -1))) + decoder.positions.weight[: start + slots]
    bias = torch.zeros(start + slots, len(states))
    for row, frame in product(range(start - 1, start + slots), range(len(states))):
        slot = row - start + 1  # the autoregressive shift: slot 0 is read at the end of the prefix
        bias[row, frame] = -(((frame + 0.5) / head.frames_per_slot - (slot + 0.5)) ** 2) / (2 * width**2)
    for block, cross, reader in zip(decoder.blocks, decoder.adapters, decoder.readers, strict=True):
        x = x + heads(block.attn, block.norm_1(x), block.attn.k_proj, block.attn.v_proj, block.norm_1(x), 0.0)
        x = x + heads(cross, cross.norm(x), reader.k_proj, reader.v_proj, states, bias)
        x = x + block.mlp(x)
    return decoder.norm(x)[start - 1 : start - 1 + slots]


def heads(asking: torch.nn.Module, x, k_proj, v_proj, source, bias) -> torch.Tensor:
    """Softmax attention with an added bias, one head after another."""
    query, key, value = asking.q_proj(x), k_proj(source), v_proj(source)
    size = x.size(1) // asking.heads
    found = []
    for first in range(0, x.size(1), size):
        part = slice(first, first + size)
        scores = query[:, part] @ key[:, part].t() / math.sqrt(size) + bias
        found.append(scores.softmax(-1) @ value[:, part])
    return asking.out_proj(torch.cat(found, 1))


@torch.no_grad()
@pytest.mark.parametrize("width", [0.7, 3.0])
def test_logits_by_formula(toy_whisper, pieces, states, width):
    """Prefix, masks, shift and distance bias; the null token's logit is that of the text's end before training."""
    head = build(toy_whisper, pieces, width=width)
    logits, slots = head.scores(states[:1], LENGTHS[:1])
    hidden = by_formula(head, states[0], width)
    assert slots.tolist() == [5] and logits.shape == (1, 5, len(pieces) + 1)
    torch.testing.assert_close(logits[0, :, :-1], hidden @ head.decoder.embed.weight.t(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits[0, :, -1], logits[0, :, pieces.index("<|endoftext|>")])


@torch.no_grad()
def test_widths_are_learned_by_layer_and_head(head, toy_whisper, pieces, states):
    """Narrowing by ln 2 / 100 in all heads is a start with half the width; in one head it is neither."""
    halved = build(toy_whisper, pieces, width=1.5).scores(states, LENGTHS)[0]
    start = head.scores(states, LENGTHS)[0]
    head.narrowing[0, 0] = math.log(2) / 100
    first = head.scores(states, LENGTHS)[0]
    assert (first - start).abs().max() > 1e-4 and (first - halved).abs().max() > 1e-4
    head.narrowing.fill_(math.log(2) / 100)
    torch.testing.assert_close(head.scores(states, LENGTHS)[0], halved, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_wide_head_is_whispers_own_attention(toy_whisper, pieces, states):
    """Without the bias it is the diffusion decoder on a canvas of masks."""
    from whisfusion_asr.models.adapter import Acoustics

    head = build(toy_whisper, pieces, width=1e6)
    canvas = torch.full((1, 5), len(pieces))
    plain = head.decoder(canvas, head.decoder.read(Acoustics(states[:1], LENGTHS[:1]), 5))
    torch.testing.assert_close(head.scores(states[:1], LENGTHS[:1])[0][..., :-1], plain, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_slots_hear_what_is_near(toy_whisper, pieces, states):
    """With narrow heads the cross-attention of a slot moves when its own states change; far ones do nothing."""
    narrow = build(toy_whisper, pieces, width=0.05)
    bias = -narrow._squares(8, 20) / (2 * 0.05**2)
    start = narrow.decoder.prefix_embed.size(0)
    query, key, value = (torch.randn(1, 2, n, 4, generator=torch.Generator().manual_seed(n)) for n in (8, 20, 21))
    value = value[:, :, :20]
    changed = value.clone()
    changed[:, :, 8:] = 9.0
    heard = torch.ones(1, 20, dtype=torch.bool)
    before, after = (attend_near(query, key, v, heard, bias.expand(2, -1, -1)) for v in (value, changed))
    same = torch.isclose(before, after, atol=1e-4).all(-1)[0]
    assert same[start - 1 : start + 1].all() and not same[start + 1 :].any() and not same[: start - 1].any()


@torch.no_grad()
def test_padding_changes_nothing(head, states):
    """An utterance alone, and in a batch of longer ones; logits by state are those of their slots."""
    together, slots = head.scores(states, LENGTHS)
    assert slots.tolist() == [5, 2, 3]
    by_state = head(states, LENGTHS)
    assert by_state.shape[:2] == states.shape[:2]
    for row, length in enumerate(LENGTHS.tolist()):
        alone, _ = head.scores(states[row : row + 1, :length], LENGTHS[row : row + 1])
        torch.testing.assert_close(together[row, : slots[row]], alone[0], atol=1e-4, rtol=1e-4)
        for frame in range(length):
            assert torch.equal(by_state[row, frame], together[row, frame // 4])


@torch.no_grad()
def test_the_text_by_state_is_the_text_by_slot(head):
    """Repetition of logits adds no tokens and takes none away, at any number of states."""
    blank = head.blank
    path = [3, 3, blank, 3, 5, blank, 4]
    logits = torch.nn.functional.one_hot(torch.tensor([path]), blank + 1).float()
    for frames in (25, 26, 28):
        by_state = head.at_frames(logits, frames)
        found = greedy_tokens(greedy_path(by_state, torch.tensor([frames])), blank)
        assert found == greedy_tokens(greedy_path(logits, torch.tensor([7])), blank) == [[3, 3, 5, 4]]


def test_gradient_reaches_what_is_new_and_no_padding(head, states):
    """Widths, null row, mask and states of the utterance; not the states beyond its length."""
    states.requires_grad_()
    logits, slots = head.scores(states, LENGTHS)
    text = torch.tensor([[5, 6, 7], [8, -1, -1], [9, 9, -1]])
    head.loss(logits, slots, text, torch.tensor([3, 1, 2])).backward()
    for value in (head.narrowing, head.null, head.decoder.mask, head.decoder.adapters[0].q_proj.weight):
        assert value.grad is not None and value.grad.abs().sum() > 0
    assert states.grad[1, 7:].abs().sum() == 0 and (states.grad[1, :7].abs().sum(-1) > 0).all()


def test_a_network_of_it(toy_whisper, pieces, states):
    """By its name in YAML: a model that only drafts; its greedy text has no null tokens."""
    conf = {"encoder": "states", "encoder_conf": {"size": states.size(2)}, "token_list": pieces,
            "ctc": "anchored_whisper", "ctc_conf": {"model": str(toy_whisper), "frames_per_slot": 2}}
    network = build_network(conf, len(pieces)).eval()
    assert isinstance(network.ctc, AnchoredWhisper) and network.decoder is None
    with torch.no_grad():
        drafts = network.greedy_draft(network.ctc(states, LENGTHS), LENGTHS)
    assert len(drafts) == 3 and all(token < len(pieces) for ids, _ in drafts for token in ids)


@pytest.mark.parametrize("options", [RunOptions("bfloat16"), RunOptions(quantize="int8")])
def test_it_runs_in_other_arithmetic(head, toy_whisper, pieces, states, options):
    """With 8 bits the token table, too, which is no layer of its own."""
    other = prepare(build(toy_whisper, pieces), options)
    assert isinstance(other.decoder.head, Int8Linear) == (options.quantize == "int8")
    with torch.no_grad():
        wanted, found = (each.scores(states, LENGTHS)[0].float() for each in (head, other))
    assert 1e-4 < (found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt() < 0.05


@pytest.mark.parametrize("conf", [{"frames_per_slot": 0}, {"width": 0.0}])
def test_settings_that_make_no_slots(toy_whisper, pieces, conf):
    with pytest.raises(UserError, match="frames_per_slot .* must be at least 1, width .* above 0"):
        build(toy_whisper, pieces, **conf)


def test_states_of_another_width(toy_whisper, pieces):
    with pytest.raises(UserError, match="take the Whisper that made the states"):
        AnchoredWhisper(7, len(pieces), pieces, str(toy_whisper))


def test_tokens_without_an_end(toy_whisper, pieces):
    """The null token begins as the end token's row."""
    with pytest.raises(UserError, match=r"no <\|endoftext\|>; make the list with --token_type whisper"):
        build(toy_whisper, [piece for piece in pieces if piece != "<|endoftext|>"])
