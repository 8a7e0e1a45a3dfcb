"""From a configuration to the network: what it builds, and how a wrong key is named."""

import pytest

from whisfusion_asr.errors import UserError
from whisfusion_asr.models.build import build_network
from whisfusion_asr.models.ctc_head import CTCHead
from whisfusion_asr.models.diffusion_decoder import DiffusionDecoder
from whisfusion_asr.models.light_conformer import LightConformer

CTC_MODEL = {
    "frontend": "logmel", "frontend_conf": {"n_mels": 20}, "specaug": "specaug", "encoder": "light_conformer",
    "encoder_conf": {"output_size": 16, "num_blocks": 1}, "ctc": "ctc_head",
}
STATES_MODEL = {"encoder": "states", "encoder_conf": {"size": 16}, "ctc": "ctc_head", "decoder": "diffusion",
                "decoder_conf": {"size": 16, "num_blocks": 1, "ruler": "ctc_count"}}


def test_each_part_gets_the_width_of_the_one_before():
    network = build_network(CTC_MODEL, vocab_size=9)
    assert isinstance(network.encoder, LightConformer) and isinstance(network.ctc, CTCHead)
    assert network.encoder.subsample[0].in_channels == 20
    assert network.ctc.output.in_features == 16 and network.ctc.blank == 9
    assert network.decoder is None


def test_the_decoder_reads_states_of_the_encoders_width():
    network = build_network(STATES_MODEL, vocab_size=9)
    assert isinstance(network.decoder, DiffusionDecoder)
    assert network.decoder.adapters[0].kv_proj.in_features == 16 and network.decoder.ruler is not None
    assert network.decoder.head.out_features == 9 and network.decoder.embed.num_embeddings == 10


def test_without_an_encoder_it_is_a_text_model():
    network = build_network({"decoder": "diffusion", "decoder_conf": {"size": 16, "num_blocks": 1}}, vocab_size=9)
    assert network.encoder is network.ctc is network.frontend is None
    assert network.decoder.adapters is None


@pytest.mark.parametrize(("change", "message"), [
    ({"encoder": "conformerr"}, "encoder: 'conformerr' is unknown; choose one of .*light_conformer, states, .*whisper"),
    ({"encoder_conf": {"blocks": 2}}, "encoder_conf: unknown key blocks for encoder: light_conformer; it knows "),
    ({"encoder_conf": {"input_size": 3}}, "encoder_conf: unknown key input_size for encoder: light_conformer"),
    ({"encoder": None}, "a CTC head reads encoder states; set encoder:"),
    ({"encoder": "states", "encoder_conf": {}}, "encoder_conf: encoder: states needs the key size"),
    ({"frontend": None}, "encoder: light_conformer needs frontend:"),
])
def test_a_wrong_configuration_is_one_line(change, message):
    with pytest.raises(UserError, match=message):
        build_network(CTC_MODEL | change, vocab_size=9)
