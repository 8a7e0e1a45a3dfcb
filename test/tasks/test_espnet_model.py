"""The model as ESPnet's trainer sees it: its loss, its masks in training and validation, and what learns."""

import copy
from collections.abc import Callable

import pytest
import torch

pytest.importorskip("espnet2", reason="ESPnet is not installed")

from whisfusion_asr.decoding.pdd import PddOptions, candidate_uniforms, pdd
from whisfusion_asr.errors import UserError
from whisfusion_asr.models.ctc_head import CTCHead
from whisfusion_asr.models.diffusion_decoder import DiffusionDecoder
from whisfusion_asr.models.whisfusion import DumpedStates, Whisfusion
from whisfusion_asr.tasks.espnet_model import DiffusionASRModel

VOCAB, STATE = 6, 8
TEXTS = [[1, 2, 3], [4, 5], [5, 1, 4, 2], [3]]
NAMES = [f"utt{index}" for index in range(4)]


def decoder(state: int | None = STATE, ruler: str = "ctc_count") -> DiffusionDecoder:
    return DiffusionDecoder(VOCAB, state, size=24, num_blocks=2, attention_heads=2, ffn_size=32,
                            ruler=ruler if state else "none")


def full(ctc_weight: float = 0.0, **settings: object) -> DiffusionASRModel:
    torch.manual_seed(0)
    network = Whisfusion(None, None, DumpedStates(STATE), CTCHead(STATE, VOCAB), decoder())
    settings = {"canvas_conf": {"fit": "fixed", "length": 10}, "ctc_weight": ctc_weight} | settings
    return DiffusionASRModel(network, VOCAB, **settings)


def text_only(**settings: object) -> DiffusionASRModel:
    torch.manual_seed(0)
    settings = {"canvas_conf": {"fit": "fixed", "length": 10}} | settings
    return DiffusionASRModel(Whisfusion(None, None, None, None, decoder(None)), VOCAB, **settings)


@pytest.fixture(scope="module")
def table() -> dict[str, torch.Tensor]:
    """Four utterances as ESPnet's collation gives them: two frames a token in its own direction, and noise."""
    torch.manual_seed(3)
    directions = 2 * torch.eye(VOCAB + 1, STATE)
    frames = [[label for token in text for label in (token, token, VOCAB)] for text in TEXTS]
    states = torch.zeros(4, 12, STATE)
    for row, labels in zip(states, frames, strict=True):
        row[: len(labels)] = directions[labels] + 0.1 * torch.randn(len(labels), STATE)
    text = torch.full((4, 4), -1)
    for row, tokens in zip(text, TEXTS, strict=True):
        row[: len(tokens)] = torch.tensor(tokens)
    return {"text": text, "text_lengths": torch.tensor([len(t) for t in TEXTS]), "states": states,
            "states_lengths": torch.tensor([len(f) for f in frames])}


def batch(table: dict[str, torch.Tensor], rows: list[int], states: bool = True) -> dict[str, object]:
    kept = table if states else {name: table[name] for name in ("text", "text_lengths")}
    return {name: value[rows] for name, value in kept.items()} | {"utt_id": [NAMES[row] for row in rows]}


def canvases(model: DiffusionASRModel, *batches: dict[str, object]) -> list[torch.Tensor]:
    """The corrupted canvases that the decoder gets for each batch."""
    seen: list[torch.Tensor] = []
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(model.decoder, "hidden", spy(model.decoder.hidden, seen), raising=False)
        for each in batches:
            model(**each)
    return seen


def spy(hidden: Callable[..., torch.Tensor], seen: list[torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`hidden` that also notes its canvases."""

    def call(canvas: torch.Tensor, *others: object) -> torch.Tensor:
        seen.append(canvas.clone())
        return hidden(canvas, *others)

    return call


def value(model: DiffusionASRModel, inputs: dict[str, object]) -> float:
    with torch.no_grad():
        return model(**inputs)[0].item()


def test_loss_stats_and_weight(table):
    model = full(ctc_weight=0.3).eval()
    loss, stats, weight = model(**batch(table, [0, 1, 2, 3]))
    assert loss.numel() == 1 and loss.requires_grad and weight.item() == 4
    assert set(stats) == {"loss", "loss_ctc", "ter_ctc", "loss_text", "loss_end", "loss_pad", "acc"}
    assert not any(stat.requires_grad for stat in stats.values())
    model.ctc_weight = 0.0
    diffusion = value(model, batch(table, [0, 1, 2, 3]))
    assert loss.item() == pytest.approx(diffusion + 0.3 * stats["loss_ctc"].item(), rel=1e-5)


def test_validation_loss_is_the_cross_entropy_of_the_hidden_slots(table):
    model = full().eval()
    rows = [0, 1, 2, 3]
    (canvas,) = canvases(model, batch(table, rows))
    target = torch.tensor([text + [0] * (10 - len(text)) for text in TEXTS])
    hidden = canvas == VOCAB
    assert torch.equal(canvas[~hidden], target[~hidden]) and hidden.any(1).all()
    with torch.no_grad():
        lengths = table["states_lengths"]
        logits = model.network.predict(canvas, model.network.acoustics(table["states"], lengths)).double()
    entropy = -logits.log_softmax(-1).gather(-1, target[..., None])[..., 0]
    assert value(model, batch(table, rows)) == pytest.approx(entropy[hidden].mean().item(), rel=1e-5)


def test_validation_repeats_itself_and_leaves_the_trainers_random_numbers_alone(table):
    model = full(mask_seed=5).eval()
    inputs = batch(table, [0, 1, 2, 3])
    before = torch.get_rng_state()
    first = value(model, inputs)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert value(model, inputs) == first
    assert value(full(mask_seed=6).eval(), inputs) != first


def test_validation_masks_do_not_depend_on_the_batch(table):
    model = full().eval()
    together, shuffled, *alone = canvases(model, batch(table, [0, 1, 2, 3]), batch(table, [2, 0, 3, 1]),
                                          *(batch(table, [row]) for row in range(4)))
    assert torch.equal(together[[2, 0, 3, 1]], shuffled)
    assert torch.equal(together, torch.cat(alone))


def test_validation_loss_of_a_batch_is_the_mean_of_its_parts(table):
    """Weighted by hidden slots; with inverse_ratio by utterances, the trainer's own weights: any batches, one value."""
    rows, parts = [0, 1, 2, 3], ([0, 1, 2], [3])
    model = full(loss_weighting="inverse_ratio").eval()
    mean = sum(len(part) * value(model, batch(table, part)) for part in parts) / 4
    assert value(model, batch(table, rows)) == pytest.approx(mean, rel=1e-4)
    model = full().eval()
    hidden = [int((canvas == VOCAB).sum()) for canvas in canvases(model, *(batch(table, part) for part in parts))]
    mean = sum(n * value(model, batch(table, part)) for n, part in zip(hidden, parts, strict=True)) / sum(hidden)
    assert value(model, batch(table, rows)) == pytest.approx(mean, rel=1e-4)


def test_training_masks_change_with_the_step_and_come_back_with_the_trainers_seed(table):
    model, inputs = full().train(), batch(table, [0, 1, 2, 3])
    torch.manual_seed(1)
    first, second = canvases(model, inputs, inputs)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    again = canvases(model, inputs, inputs)
    assert torch.equal(first, again[0]) and torch.equal(second, again[1])


def test_self_correction_reads_the_audio_once_and_trains_on_both_canvases(table):
    model = full(self_correction=[0.3, 0.3])
    reads = []
    read = model.decoder.read
    model.decoder.read = lambda *args: reads.append(args) or read(*args)
    loss, stats, _ = model.train()(**batch(table, [0, 1, 2, 3]))
    assert len(reads) == 1 and len(canvases(model, batch(table, [0]))) == 2
    assert loss.item() == pytest.approx((stats["loss_first"] + stats["loss_second"]).item(), rel=1e-6)
    assert {"acc_second", "wrong_second"} <= set(stats)
    loss.backward()
    assert model.decoder.adapters[0].kv_proj.weight.grad.abs().sum() > 0


def test_without_conditioning_the_audio_sizes_the_canvas_and_says_nothing_else(table):
    torch.manual_seed(0)
    deaf = DiffusionDecoder(VOCAB, STATE, size=24, num_blocks=2, attention_heads=2, ffn_size=32, ruler="ctc_count",
                            conditioned=False)
    network = Whisfusion(None, None, DumpedStates(STATE), CTCHead(STATE, VOCAB), deaf)
    model = DiffusionASRModel(network, VOCAB, canvas_conf={"fit": "fixed", "length": 10}).eval()
    inputs = batch(table, [0, 1, 2, 3])
    other = inputs | {"states": torch.randn_like(inputs["states"])}
    assert not any(name.startswith(("decoder.adapters", "decoder.ruler")) for name, _ in model.named_parameters())
    assert value(model, inputs) == value(model, other) != value(full().eval(), inputs)


@pytest.mark.parametrize("key", ["mask_ratio", "self_correction"])
def test_bounds_that_are_not_two(key):
    with pytest.raises(UserError, match=rf"model_conf.{key}: expected \[low, high\], got \[0.5\]"):
        full(**{key: [0.5]})


@pytest.mark.parametrize("bos_id", [None, 5])
def test_the_mask_law_and_the_prefix_reach_the_canvas(table, bos_id):
    model = text_only(mask_ratio=(1.0, 1.0), bos_id=bos_id).eval()
    (canvas,) = canvases(model, batch(table, [0, 1], states=False))
    prefix = [] if bos_id is None else [5]
    assert canvas.tolist() == [prefix + [VOCAB] * (10 - len(prefix))] * 2


@pytest.mark.parametrize(("path", "slots"), [([1, 2, 1, 2, 6, 6], 5), ([1, 1, 6, 6, 6, 6], 3)])
def test_fitted_canvases_have_room_for_text_and_count(table, monkeypatch, path, slots):
    """The text has two tokens; the head counts four or one; a margin of one slot comes on top."""
    model = full(canvas_conf={"fit": "count", "margin": 1}).eval()
    logits = torch.nn.functional.one_hot(torch.tensor([path + [VOCAB] * 6]), VOCAB + 1).float()
    monkeypatch.setattr(model.ctc, "forward", lambda states, lengths: logits)
    assert canvases(model, batch(table, [1]))[0].shape == (1, slots)


def test_ctc_alone(table):
    torch.manual_seed(0)
    model = DiffusionASRModel(Whisfusion(None, None, DumpedStates(STATE), CTCHead(STATE, VOCAB), None), VOCAB,
                              ctc_weight=1.0)
    loss, stats, _ = model(**batch(table, [0, 1, 2, 3]))
    assert set(stats) == {"loss", "loss_ctc"}, "error rates cost time and belong to validation"
    expected = torch.nn.functional.ctc_loss(
        model.ctc.output(table["states"]).log_softmax(-1).transpose(0, 1), table["text"].clamp(min=0),
        table["states_lengths"], table["text_lengths"], VOCAB, "sum") / 10
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_token_error_rate_of_the_greedy_transcripts(table):
    model = full(ctc_weight=1.0).eval()
    _, stats, _ = model(**batch(table, [0, 1, 2, 3]))
    found = []
    for row, frames in zip(model.ctc.output(table["states"]).argmax(-1).tolist(), table["states_lengths"], strict=True):
        row = row[:frames]
        found.append([t for i, t in enumerate(row) if t != VOCAB and (i == 0 or t != row[i - 1])])
    assert stats["ter_ctc"].item() == pytest.approx(sum(map(edits, found, TEXTS)) / 10)


def edits(found: list[int], wanted: list[int]) -> int:
    """Fewest insertions, deletions and substitutions between two sequences."""
    if not found or not wanted:
        return len(found) + len(wanted)
    kept = edits(found[1:], wanted[1:])
    return kept if found[0] == wanted[0] else 1 + min(kept, edits(found[1:], wanted), edits(found, wanted[1:]))


def test_text_alone_needs_no_audio(table):
    loss, stats, weight = text_only()(**batch(table, [0, 1], states=False))
    assert set(stats) == {"loss", "loss_text", "loss_end", "loss_pad", "acc"} and weight.item() == 2
    loss.backward()


def test_gradient_with_the_head_kept_for_the_ruler_only(table):
    model = full(ctc_weight=0.0).train()
    model(**batch(table, [0, 1, 2, 3]))[0].backward()
    assert all(parameter.grad is None for parameter in model.ctc.parameters())
    assert all(parameter.grad is not None for parameter in model.decoder.parameters())
    model = full(ctc_weight=0.5).train()
    model(**batch(table, [0, 1, 2, 3]))[0].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.ctc.parameters())


def test_a_frozen_decoder_half_gets_no_gradient(table):
    model = full().train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(("decoder.adapters.", "decoder.ruler.")))
    model(**batch(table, [0, 1, 2, 3]))[0].backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached == {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_checkpoints_name_the_parts_once():
    model = full()
    assert {name.split(".")[0] for name in model.state_dict()} == {"ctc", "decoder"}
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in model.network.parameters())


def test_a_copy_computes_with_its_own_parts(table):
    """As an average of weights needs it: the unregistered network must follow its parts into the copy."""
    model, inputs = full().eval(), batch(table, [0, 1, 2, 3])
    duplicate = copy.deepcopy(model)
    assert duplicate.network.decoder is duplicate.decoder is not model.decoder
    first = value(model, inputs)
    with torch.no_grad():
        duplicate.decoder.head.weight.zero_()
    assert value(duplicate, inputs) == pytest.approx(torch.tensor(float(VOCAB)).log().item(), rel=1e-5)
    assert value(model, inputs) == first


def test_what_is_missing_is_named(table):
    with pytest.raises(UserError, match="nothing to train: set decoder:, or ctc:"):
        DiffusionASRModel(Whisfusion(None, None, DumpedStates(STATE), CTCHead(STATE, VOCAB), None), VOCAB)
    with pytest.raises(UserError, match="has an encoder, but the data has neither speech nor states"):
        full()(**batch(table, [0], states=False))
    with pytest.raises(UserError, match="does not fit"):
        text_only(canvas_conf={"fit": "fixed", "length": 2})(**batch(table, [0], states=False))


def test_a_bos_that_the_ruler_does_not_know_of_is_refused():
    with pytest.raises(UserError, match=r"model_conf.bos_id 1 .* decoder_conf.prefix 0"):
        full(bos_id=1)


@pytest.mark.parametrize(("wrong", "message"), [
    ({"canvas_conf": {"fit": "first_pass"}}, "model_conf.canvas_conf.fit: first_pass needs the passes of a decoding"),
    ({"canvas_conf": {"lenght": 9}}, "canvas_conf: unknown key lenght; it knows fit, length, margin, tokens_per_frame"),
    ({"mask_ratio": [0.5]}, r"model_conf.mask_ratio: expected \[low, high\], got \[0.5\]"),
    ({"mask_ratio": [0.9, 0.5]}, "mask ratio: expected 0 <= low <= high"),
])
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(UserError, match=message):
        text_only(**wrong)


def test_four_utterances_are_learned_by_heart_and_decoded(table):
    model, inputs = full(ctc_weight=1.0, canvas_conf={"fit": "count", "margin": 2}).train(), batch(table, [0, 1, 2, 3])
    fast = [{"params": model.ctc.parameters(), "lr": 0.1}, {"params": model.decoder.parameters(), "lr": 1e-2}]
    optimizer = torch.optim.AdamW(fast)
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        loss, stats, _ = model(**inputs)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 2.0 and sum(losses[-10:]) / 10 < 0.1 * losses[0]
    model.eval()
    network, options = model.network, PddOptions(3)
    with torch.no_grad():
        assert model(**inputs)[1]["ter_ctc"].item() == 0.0
        for row, text in enumerate(TEXTS):
            frames = table["states_lengths"][row]
            acoustics = network.acoustics(table["states"][row : row + 1, :frames], frames[None])
            length = model.canvas_rule.decoding_length(model.spec, int(frames), int(acoustics.counts))
            memory = network.decoder.read(acoustics, length).repeat(3)
            candidates = pdd(lambda canvas: network.decoder(canvas, memory), length, model.spec, options,  # noqa: B023
                             candidate_uniforms(options, NAMES[row], length))
            assert [c.tokens for c in candidates] == [text] * 3


def test_rows_with_gaps_are_trained_and_validated_the_same_each_time(table):
    data = batch(table, [0, 1, 2])
    model = full(gap_conf={"share": 1.0, "ahead": 2}).eval()
    once, again = (model(**data)[0] for _ in range(2))
    assert torch.equal(once, again) and once != full().eval()(**data)[0]
    with pytest.raises(UserError, match="gap_conf: unknown key wide"):
        full(gap_conf={"wide": 2})
