"""Speech2Text: a trained experiment as a callable, in ESPnet's form.

    from whisfusion_asr.api import Speech2Text
    speech2text = Speech2Text("exp/mini_synth", encoder_dir="exp/encoder")
    text, tokens, token_ids, transcript = speech2text(waveform)[0]
"""

from whisfusion_asr.api.drafts import Drafter
from whisfusion_asr.api.loading import canvas_spec, load_encoder, load_network, load_tokens, text_form
from whisfusion_asr.api.speech2text import SAMPLE_RATE, Speech2Text, Utterance, check_duration, log_probs
from whisfusion_asr.api.word_times import token_spans

__all__ = ["SAMPLE_RATE", "Drafter", "Speech2Text", "Utterance", "canvas_spec", "check_duration", "load_encoder",
           "load_network", "load_tokens", "log_probs", "text_form", "token_spans"]
