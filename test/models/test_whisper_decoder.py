"""Whisper's decoder as the diffusion decoder: equal to transformers' before training, and a CanvasDecoder."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from whisfusion_asr.data.tokenizer import load_tokenizer
from whisfusion_asr.data.whisper_tokens import choose_tokens
from whisfusion_asr.errors import UserError
from whisfusion_asr.models.adapter import Acoustics
from whisfusion_asr.models.build import build_network
from whisfusion_asr.models.running import RunOptions, prepare
from whisfusion_asr.models.whisfusion import Predictor
from whisfusion_asr.models.whisper_decoder import WhisperDiffusionDecoder
from whisfusion_asr.models.whisper_vocabulary import prefix_ids, read_vocabulary, whisper_ids

TEXT = "the cat saw my old house"


def build(folder: Path, pieces: list[str], **conf: object) -> WhisperDiffusionDecoder:
    width = WhisperForConditionalGeneration.from_pretrained(folder).config.d_model
    return WhisperDiffusionDecoder(len(pieces), width, pieces, str(folder), **conf).eval()


@pytest.fixture(scope="module")
def pieces(toy_whisper_tokens: Path) -> list[str]:
    return load_tokenizer(toy_whisper_tokens).pieces


@pytest.fixture(scope="module")
def toy(toy_whisper: Path, pieces: list[str]) -> WhisperDiffusionDecoder:
    return build(toy_whisper, pieces)


@pytest.fixture(scope="module")
def acoustics(toy: WhisperDiffusionDecoder) -> Acoustics:
    """Three utterances of unlike length."""
    torch.manual_seed(1)
    return Acoustics(torch.randn(3, 9, toy.embed.embedding_dim), torch.tensor([9, 4, 7]))


def canvases(toy: WhisperDiffusionDecoder, rows: int, length: int = 8) -> torch.Tensor:
    """Tokens with about half of them masked."""
    size = toy.embed.num_embeddings
    drawn = torch.randint(size, (rows, length), generator=torch.Generator().manual_seed(2))
    hidden = torch.rand(rows, length, generator=torch.Generator().manual_seed(3)) < 0.5
    return drawn.masked_fill(hidden, size)


def check_zero_step(folder: Path, tokens: Path) -> None:
    """With the causal mask and no training: transformers' logits of the list's tokens, slot by slot."""
    tokenizer = load_tokenizer(tokens)
    whisper = WhisperForConditionalGeneration.from_pretrained(folder).float().eval()
    vocabulary = read_vocabulary(str(folder))
    prefix = prefix_ids(vocabulary, str(folder), "en", "transcribe")
    rows = torch.tensor(whisper_ids(vocabulary, tokenizer.pieces, str(folder)))
    ids = tokenizer.encode(TEXT)
    states = torch.randn(1, 50, whisper.config.d_model, generator=torch.Generator().manual_seed(0))
    decoder = build(folder, tokenizer.pieces, causal=True)
    with torch.no_grad():
        theirs = whisper(encoder_outputs=(states,), decoder_input_ids=torch.tensor([prefix + rows[ids].tolist()]))
        ours = decoder(torch.tensor([ids]), decoder.read(Acoustics(states, torch.tensor([50])), len(ids)))
    wanted = theirs.logits[:, len(prefix) - 1 : -1, rows]
    assert wanted.std() > 0.1
    torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=0)


def test_before_training_it_is_whisper(toy_whisper: Path, toy_whisper_tokens: Path) -> None:
    check_zero_step(toy_whisper, toy_whisper_tokens)


def test_before_training_it_is_the_real_whisper(real_whisper: Path, tmp_path: Path) -> None:
    choose_tokens([TEXT], str(real_whisper), tmp_path)
    check_zero_step(real_whisper, tmp_path)


def test_the_prefix_of_each_kind_of_model(toy_whisper: Path, tmp_path: Path) -> None:
    vocabulary, names = read_vocabulary(str(toy_whisper)), {}
    names = {number: piece for piece, number in vocabulary.items()}
    found = prefix_ids(vocabulary, str(toy_whisper), "de", "translate")
    assert [names[i] for i in found] == ["<|startoftranscript|>", "<|de|>", "<|translate|>", "<|notimestamps|>"]
    (tmp_path / "generation_config.json").write_text('{"is_multilingual": false}')
    found = prefix_ids(vocabulary, str(tmp_path), "de", "translate")
    assert [names[i] for i in found] == ["<|startoftranscript|>", "<|notimestamps|>"]


def test_the_language_changes_what_is_written(toy_whisper: Path, pieces: list[str], toy, acoustics) -> None:
    german, canvas = build(toy_whisper, pieces, language="de"), canvases(toy, 3)
    with torch.no_grad():
        assert (german(canvas, german.read(acoustics, 8)) - toy(canvas, toy.read(acoustics, 8))).abs().max() > 1e-3


def test_the_shift_reads_slot_i_at_i_minus_1(toy_whisper: Path, pieces: list[str], toy, acoustics) -> None:
    plain, canvas = build(toy_whisper, pieces, logit_shift=False), canvases(toy, 3)
    with torch.no_grad():
        memory = toy.read(acoustics, 8)
        torch.testing.assert_close(toy.hidden(canvas, memory)[:, 1:], plain.hidden(canvas, memory)[:, :-1])


@pytest.mark.parametrize("causal", [True, False])
def test_only_the_causal_mask_hides_the_right(toy_whisper: Path, pieces: list[str], acoustics, causal: bool) -> None:
    decoder = build(toy_whisper, pieces, causal=causal)
    canvas = canvases(decoder, 3)
    other = canvas.clone()
    other[:, 6] = 5
    with torch.no_grad():
        memory = decoder.read(acoustics, 8)
        change = (decoder(canvas, memory) - decoder(other, memory)).abs().amax((0, 2))
    assert (change[:6].max() < 1e-6) == causal and change[7] > 1e-4


def test_it_can_still_read_from_left_to_right(toy_whisper: Path, pieces: list[str], toy, acoustics) -> None:
    """`hidden_before` is what the same weights give with causal=True, also for folded rows of unlike length."""
    causal, canvas = build(toy_whisper, pieces, causal=True), canvases(toy, 4)
    rows, lengths = torch.tensor([2, 0, 2, 1]), torch.tensor([8, 5, 8, 6])
    with torch.no_grad():
        memory = toy.read(acoustics, 8)
        ours, theirs = toy.hidden_before(canvas, memory, rows, lengths), causal.hidden(canvas, memory, rows, lengths)
        torch.testing.assert_close(ours, theirs)
        assert (ours - toy.hidden(canvas, memory, rows, lengths)).abs().max() > 1e-3


@pytest.mark.parametrize("options", [RunOptions("bfloat16"), RunOptions(quantize="int8"),
                                     RunOptions("bfloat16", compile="default")])
@pytest.mark.parametrize("before", [False, True])
def test_both_directions_run_in_other_arithmetic(toy_whisper: Path, pieces: list[str], toy, acoustics, before: bool,
                                                 options: RunOptions) -> None:
    """As the engine calls them: the network's slots, and the slots foretold from those before them."""
    other, canvas = prepare(build(toy_whisper, pieces), options, "eager"), canvases(toy, 4)
    lengths, rows, asked = torch.full((3,), 8), torch.tensor([2, 0, 2, 1]), torch.ones(4, 8, dtype=torch.bool)
    with torch.no_grad():
        wanted, found = (torch.cat(list(Predictor(one, one.read(acoustics, 8), lengths, before)(canvas, rows, asked)))
                         for one in (toy, other))
    assert 1e-4 < (found.float() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt() < 0.05
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("causal", [True, False])
def test_a_row_depends_on_its_own_utterance_and_slots_only(toy_whisper, pieces, acoustics, causal: bool) -> None:
    decoder = build(toy_whisper, pieces, causal=causal)
    canvas, rows, lengths = canvases(decoder, 4), torch.tensor([2, 0, 2, 1]), torch.tensor([8, 5, 8, 6])
    with torch.no_grad():
        together = decoder.hidden(canvas, decoder.read(acoustics, lengths[[1, 3, 0]]), rows, lengths)
        for row, (utterance, length) in enumerate(zip(rows.tolist(), lengths.tolist(), strict=True)):
            frames = int(acoustics.lengths[utterance])
            alone = Acoustics(acoustics.states[utterance : utterance + 1, :frames], torch.tensor([frames]))
            wanted = decoder.hidden(canvas[row : row + 1, :length], decoder.read(alone, length))
            torch.testing.assert_close(together[row : row + 1, :length], wanted, atol=1e-5, rtol=1e-5)


def test_the_token_table_on_8_bits(toy_whisper, pieces, acoustics) -> None:
    """The table names the tokens, too: with a scale for each of its rows. As input it stays what it is."""
    decoder = build(toy_whisper, pieces)
    table, hidden = decoder.embed.weight.detach().clone(), torch.randn(2, 3, decoder.embed.embedding_dim)
    with torch.no_grad():
        decoder.head_bias.normal_()
        exact = decoder.logits(hidden)
        found = prepare(decoder, RunOptions(quantize="int8")).logits(hidden)
    assert torch.equal(decoder.embed.weight, table)
    # Half a step of 127 in each factor of each of the products.
    most = (hidden.abs().amax(-1, keepdim=True) * table.abs().sum(1) / 127 + table.abs().amax(1)
            * hidden.abs().sum(-1, keepdim=True) / 127) * 0.51
    assert ((found - exact).abs() <= most).all() and not torch.equal(found, exact)


def test_the_mask_starts_as_the_mean_token(toy) -> None:
    torch.testing.assert_close(toy.mask, toy.embed.weight.mean(0))
    hidden, shown = toy.embedded(torch.tensor([[toy.embed.num_embeddings, 3]]), toy.positions)[0, -2:]
    start = toy.prefix_embed.size(0)
    torch.testing.assert_close(hidden, toy.mask + toy.positions.weight[start])
    torch.testing.assert_close(shown, toy.embed.weight[3] + toy.positions.weight[start + 1])


def test_every_part_learns(toy_whisper: Path, pieces: list[str], acoustics) -> None:
    decoder = build(toy_whisper, pieces)
    decoder(canvases(decoder, 3), decoder.read(acoustics, 8)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in decoder.parameters())


def test_reading_with_layers_of_its_own(toy_whisper: Path, pieces: list[str], toy, acoustics) -> None:
    """Two copies of Whisper at the start; then neither feels what the other learns."""
    decoder, canvas = build(toy_whisper, pieces, separate_reading=True), canvases(toy, 3)
    memory = decoder.read(acoustics, 8)
    with torch.no_grad():
        torch.testing.assert_close(decoder.hidden(canvas, memory), toy.hidden(canvas, memory))
        torch.testing.assert_close(decoder.hidden_before(canvas, memory), toy.hidden_before(canvas, memory))
        before = decoder.hidden_before(canvas, memory)
        for part in (decoder.positions, decoder.blocks, decoder.adapters, decoder.norm):
            for parameter in part.parameters():
                parameter.add_(0.1)
        assert torch.equal(decoder.hidden_before(canvas, memory), before)
        assert (decoder.hidden(canvas, memory) - toy.hidden(canvas, memory)).abs().max() > 0.1


@pytest.mark.parametrize("reads", [True, False])
def test_layers_of_its_own_learn_from_reading_alone(toy_whisper: Path, pieces: list[str], acoustics, reads) -> None:
    decoder = build(toy_whisper, pieces, separate_reading=True)
    run = decoder.hidden_before if reads else decoder.hidden
    decoder.logits(run(canvases(decoder, 3), decoder.read(acoustics, 8))).square().mean().backward()
    learned = {name for name, p in decoder.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    own = {name for name, _ in decoder.named_parameters() if name.startswith("causal_layers.")}
    twins = {name.removeprefix("causal_layers.") for name in own}
    assert len(own) == len(twins) > 10 and twins <= set(dict(decoder.named_parameters()))
    assert learned & (own | twins) == (own if reads else twins)


def test_it_is_chosen_by_name(toy_whisper: Path, pieces: list[str]) -> None:
    config = {"encoder": "states", "encoder_conf": {"size": 16}, "decoder": "whisper_diffusion",
              "decoder_conf": {"model": str(toy_whisper)}, "token_list": pieces}
    assert isinstance(build_network(config, len(pieces)).decoder, WhisperDiffusionDecoder)


@pytest.mark.parametrize(("change", "message"), [
    ({"encoder_output_size": 24}, "reads states of width 16, but those here have width 24"),
    ({"encoder_output_size": None}, "reads states of width 16"),
    ({"pieces": None}, "needs the pieces of its token list"),
    ({"language": "xx"}, r"decoder_conf.language: .* has no token <\|xx\|>"),
    ({"model": "nowhere"}, "nowhere: no such folder"),
])  # fmt: skip
def test_what_does_not_fit_is_one_line(toy_whisper: Path, pieces: list[str], change: dict, message: str) -> None:
    settings = {"vocab_size": len(pieces), "encoder_output_size": 16, "pieces": pieces, "model": str(toy_whisper)}
    with pytest.raises(UserError, match=message):
        WhisperDiffusionDecoder(**settings | change)


def test_foreign_tokens_and_long_canvases_are_refused(toy_whisper: Path, pieces: list[str], toy, acoustics) -> None:
    with pytest.raises(UserError, match=rf"1 of {len(pieces) + 1} tokens are none of .* \(first: 'xyzzy'\)"):
        build(toy_whisper, [*pieces, "xyzzy"])
    with pytest.raises(UserError, match="a canvas of 37 slots: Whisper's decoder has 40 positions, 4 of them"):
        toy(torch.zeros(3, 37, dtype=torch.long), toy.read(acoustics, 37))


def test_an_incomplete_folder_is_one_line(toy_whisper: Path, pieces: list[str], tmp_path: Path) -> None:
    shutil.copytree(toy_whisper, tmp_path / "whisper")
    (tmp_path / "whisper" / "generation_config.json").unlink()
    with pytest.raises(UserError, match="generation_config.json: no such file; a complete Whisper folder"):
        build(tmp_path / "whisper", pieces)
