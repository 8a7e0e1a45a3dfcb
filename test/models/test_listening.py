"""Attention weights seen from outside: those that the layers weigh by, those of transformers, and gone afterwards."""

from pathlib import Path

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from whisfusion_asr.data.tokenizer import load_tokenizer
from whisfusion_asr.models.adapter import Acoustics, Adapter
from whisfusion_asr.models.attention import attend, attention_weights
from whisfusion_asr.models.causal_decoder import CausalDecoder
from whisfusion_asr.models.diffusion_decoder import DiffusionDecoder
from whisfusion_asr.models.listening import watched_weights
from whisfusion_asr.models.whisper_decoder import WhisperDiffusionDecoder
from whisfusion_asr.models.whisper_vocabulary import prefix_ids, read_vocabulary, whisper_ids

VOCAB = 7


def acoustics(width: int = 6) -> Acoustics:
    torch.manual_seed(0)
    return Acoustics(torch.randn(2, 9, width), torch.tensor([9, 5]))


def test_they_are_what_the_values_are_weighed_by():
    query, key, value = (torch.randn(2, 3, n, 4, generator=torch.Generator().manual_seed(n)) for n in (5, 8, 8))
    mask = torch.arange(8) < torch.tensor([[8], [3]])
    weights = attention_weights(query, key, mask)
    assert (weights[1, :, :, 3:] == 0).all()
    torch.testing.assert_close((weights @ value).transpose(1, 2).flatten(2), attend(query, key, value, mask))


@pytest.mark.parametrize("kind", [DiffusionDecoder, CausalDecoder])
def test_the_upper_half_of_the_blocks_is_heard(kind):
    decoder = kind(VOCAB, 6, size=8, num_blocks=3, attention_heads=2, ffn_size=8, clock=True)
    heard = acoustics()
    memory = decoder.read(heard, 4)
    weights = decoder.listening(torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]]), memory)
    assert weights.shape == (2, 2 * 2, 4, 9) and (weights[1, :, :, 5:] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 4))
    changed = decoder.listening(torch.tensor([[1, 2, 3, 6], [5, 6, 0, 0]]), memory)
    before = (weights[0] - changed[0]).abs().amax((0, 2))
    if kind is CausalDecoder:  # the row of a slot has read the tokens before it
        assert (before == 0).all()
        shorter = decoder.listening(torch.tensor([[0, 0]] * 2), memory)  # other sizes round in another way on some CPUs
        torch.testing.assert_close(weights[0, :, 0], shorter[0, :, 0], rtol=1e-5, atol=1e-6)
    else:
        assert (before > 0).all()


def test_nothing_is_watched_afterwards():
    decoder = DiffusionDecoder(VOCAB, 6, size=8, num_blocks=1, attention_heads=2, ffn_size=8)
    (layer,) = decoder.adapters
    assert isinstance(layer, Adapter)
    decoder.listening(torch.tensor([[1, 2]] * 2), decoder.read(acoustics(), 2))
    assert not layer._forward_pre_hooks

    def fails() -> None:
        raise RuntimeError("network")

    with pytest.raises(RuntimeError, match="network"):
        watched_weights(decoder.adapters, fails)
    assert not layer._forward_pre_hooks


@pytest.mark.parametrize("shift", [False, True])
def test_whisper_looks_where_transformers_says(toy_whisper: Path, toy_whisper_tokens: Path, shift: bool):
    tokenizer = load_tokenizer(toy_whisper_tokens)
    whisper = WhisperForConditionalGeneration.from_pretrained(toy_whisper, attn_implementation="eager").float().eval()
    vocabulary, width = read_vocabulary(str(toy_whisper)), whisper.config.d_model
    prefix = prefix_ids(vocabulary, str(toy_whisper), "en", "transcribe")
    rows = whisper_ids(vocabulary, tokenizer.pieces, str(toy_whisper))
    ids, states = tokenizer.encode("the cat saw my old house"), torch.randn(1, 50, width)
    decoder = WhisperDiffusionDecoder(len(tokenizer.pieces), width, tokenizer.pieces, str(toy_whisper), causal=True,
                                      logit_shift=shift).eval()
    found = decoder.listening(torch.tensor([ids]), decoder.read(Acoustics(states, torch.tensor([50])), len(ids)))
    asked = torch.tensor([prefix + [rows[i] for i in ids]])
    with torch.no_grad():
        layers = whisper(encoder_outputs=(states,), decoder_input_ids=asked, output_attentions=True).cross_attentions
    theirs = torch.cat(layers[len(layers) // 2 :], 1)
    own, before = theirs[:, :, len(prefix) :], theirs[:, :, len(prefix) - 1 : -1]
    torch.testing.assert_close(found, (own * before).sqrt() if shift else own, atol=1e-5, rtol=0)
