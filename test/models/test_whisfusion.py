"""The whole network: how its parts are joined, and what is said when one is missing."""

import pytest
import torch

from whisfusion_asr.errors import UserError
from whisfusion_asr.models.ctc_head import CTCHead, count_positions, greedy_path
from whisfusion_asr.models.diffusion_decoder import DiffusionDecoder
from whisfusion_asr.models.frontend import LogMel, SpecAugment
from whisfusion_asr.models.light_conformer import LightConformer
from whisfusion_asr.models.whisfusion import DumpedStates, Whisfusion

VOCAB = 7


def build() -> Whisfusion:
    torch.manual_seed(0)
    return Whisfusion(
        LogMel(n_mels=20), SpecAugment(), LightConformer(20, output_size=8, num_blocks=1, attention_heads=2, kernel=3),
        CTCHead(8, VOCAB), DiffusionDecoder(VOCAB, 8, size=16, num_blocks=1, attention_heads=2, ruler="ctc_count",
                                            adapter_out_std=0.5),
    )


@pytest.fixture
def speech() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    samples, lengths = torch.randn(2, 8000), torch.tensor([8000, 5000])
    samples[1, 5000:] = 0
    return samples, lengths


def test_encode_is_frontend_specaug_encoder(speech):
    network = build().eval()
    states, lengths = network.encode(*speech)
    expected, expected_lengths = network.encoder(*network.frontend(*speech))
    assert torch.equal(states, expected) and torch.equal(lengths, expected_lengths)
    assert torch.equal(states, network.encode(*speech)[0])
    network.train()
    assert not torch.equal(network.encode(*speech)[0], states), "SpecAugment works in training"


def test_specaug_works_on_dumped_states_too():
    torch.manual_seed(0)
    network, states = Whisfusion(None, SpecAugment(), DumpedStates(8), None, None), torch.ones(2, 30, 8)
    assert (network.encode(states, torch.tensor([30, 30]))[0] == 0).any()
    assert network.eval().encode(states, torch.tensor([30, 30]))[0] is states


def test_alone_equals_batched_from_samples_to_logits(speech):
    network, canvas = build().eval(), torch.full((2, 9), VOCAB)
    together = network.predict(canvas, network.acoustics(*network.encode(*speech)))
    for row, length in enumerate(speech[1]):
        states = network.encode(speech[0][row : row + 1, :length], length[None])
        alone = network.predict(canvas[:1], network.acoustics(*states))
        torch.testing.assert_close(together[row], alone[0], atol=1e-4, rtol=0)


def test_dumped_states_equal_states_computed_on_the_fly(speech):
    network = build().eval()
    states, lengths = network.encode(*speech)
    dumped = Whisfusion(None, None, DumpedStates(8), network.ctc, network.decoder)
    canvas = torch.full((2, 9), VOCAB)
    expected = network.predict(canvas, network.acoustics(states, lengths))
    assert torch.equal(dumped.predict(canvas, dumped.acoustics(*dumped.encode(states, lengths))), expected)


def test_acoustics_carry_the_count_and_no_gradient_of_it(speech):
    network = build().eval()
    states, lengths = network.encode(*speech)
    acoustics = network.acoustics(states, lengths)
    positions, counts = count_positions(greedy_path(network.ctc(states, lengths), lengths), VOCAB)
    assert torch.equal(acoustics.positions, positions) and torch.equal(acoustics.counts, counts)
    network.predict(torch.full((2, 9), VOCAB), acoustics).square().sum().backward()
    assert all(parameter.grad is None for parameter in network.ctc.parameters()), "the count is a decision"
    assert all(parameter.grad is not None for parameter in network.encoder.parameters())


def test_known_ctc_logits_are_used_as_they_are(speech):
    network = build().eval()
    states, lengths = network.encode(*speech)
    logits = torch.randn(*states.shape[:2], VOCAB + 1)
    _, counts = count_positions(greedy_path(logits, lengths), VOCAB)
    assert torch.equal(network.acoustics(states, lengths, logits).counts, counts)


def test_without_ctc_there_is_no_ruler():
    network = Whisfusion(None, None, DumpedStates(8), None, DiffusionDecoder(VOCAB, 8, size=16, attention_heads=2))
    acoustics = network.acoustics(torch.randn(1, 4, 8), torch.tensor([4]))
    assert acoustics.positions is None and acoustics.counts is None
    assert network.predict(torch.full((1, 5), VOCAB), acoustics).shape == (1, 5, VOCAB)


def test_a_text_model_needs_no_acoustics():
    network = Whisfusion(None, None, None, None, DiffusionDecoder(VOCAB, None, size=16, attention_heads=2))
    canvas = torch.tensor([[3, VOCAB, 0]])
    assert torch.equal(network.predict(canvas, None), network.decoder(canvas))


def test_a_missing_encoder_and_a_wrong_width_are_named():
    with pytest.raises(UserError, match="this model has no encoder: set encoder: in its YAML"):
        Whisfusion(None, None, None, None, None).encode(torch.randn(1, 4, 8), torch.tensor([4]))
    with pytest.raises(UserError, match="states of width 6, but encoder_conf.size is 8: dump again"):
        DumpedStates(8)(torch.randn(1, 4, 6), torch.tensor([4]))


def test_parts_keep_their_names_in_checkpoints():
    assert {name.split(".")[0] for name in build().state_dict()} == {"specaug", "encoder", "ctc", "decoder"}
