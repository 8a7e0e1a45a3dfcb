"""Whisper itself in the decoding benchmark: transformers and, where it is installed, CTranslate2 (faster-whisper)."""

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from whisfusion_asr.benchmark.systems import Bench
from whisfusion_asr.errors import UserError
from whisfusion_asr.models.whisper_encoder import check_model_name

WHISPER_STATES = 3000  # log-mel frames of a window
PROMPT = 4  # of Whisper's positions, those that its longest prompt takes
NOT_INSTALLED = "faster-whisper was left out: its engine ctranslate2 is not installed (pip install ctranslate2)"
NOTES = [
    "- whisper encoder: that of the given Whisper, a padded window of 30 s, transformers",
    "- whisper greedy: transformers, encoder included, left to right with a cache, as many tokens as the others write",
    "- faster-whisper, faster-whisper int8: the same work by CTranslate2, its engine, in float32 and with int8 weights",
]


class Whisper:
    """A Whisper folder in Hugging Face's layout, opened by both libraries.

    missing: a line that says what is not there, None if nothing is
    """

    def __init__(self, folder: str, converted: Path | None, args: argparse.Namespace) -> None:
        from transformers import WhisperForConditionalGeneration

        self.args, self.converted = args, converted
        self.missing = None if converted else NOT_INSTALLED
        network = WhisperForConditionalGeneration.from_pretrained(folder, dtype=getattr(torch, args.dtype))
        self.network = network.to(args.device).eval()

    def systems(self, bench: Bench) -> dict[str, Callable[[], Any]]:
        """Functions that encode one window of 30 s and write bench.tokens tokens. Raises UserError for too many."""
        config = self.network.config
        most = config.max_target_positions - PROMPT
        if bench.tokens > most:
            raise UserError(f"--whisper: this Whisper writes at most {most} tokens, and {bench.seconds:g} s have "
                            f"{bench.tokens}; lower --seconds or --tokens_per_second")
        mel = torch.randn(1, config.num_mel_bins, WHISPER_STATES).to(self.network.device, self.network.dtype)
        found = {
            "whisper encoder": torch.no_grad()(lambda: self.network.model.encoder(mel).last_hidden_state),
            "whisper greedy": lambda: self._generate(mel, bench.tokens),
        }
        if self.converted:
            frames = mel.float().cpu().numpy()
            for name, kind in (("faster-whisper", "float32"), ("faster-whisper int8", "int8")):
                found[name] = self._ctranslate2(kind, frames, bench.tokens)
        return found

    def _generate(self, mel: torch.Tensor, tokens: int) -> torch.Tensor:
        from transformers import GenerationConfig
        from transformers.generation import GenerationMixin

        config = self.network.config
        settings = GenerationConfig(min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False, num_beams=1,
                                    decoder_start_token_id=config.decoder_start_token_id,
                                    eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id)
        # Whisper's own `generate` would first find the language, and cut the result at time stamps.
        return GenerationMixin.generate(self.network, mel, generation_config=settings)

    def _ctranslate2(self, kind: str, frames: Any, tokens: int) -> Callable[[], Any]:
        import ctranslate2

        device = "cuda" if self.args.device.startswith("cuda") else "cpu"
        model = ctranslate2.models.Whisper(str(self.converted), device=device, compute_type=kind,
                                           intra_threads=torch.get_num_threads())
        config = self.network.config
        prompt, end = [config.decoder_start_token_id], config.eos_token_id
        # It writes at most half of max_length; the end is forbidden so that it writes them all.
        return lambda: model.generate(ctranslate2.StorageView.from_array(frames), [prompt], beam_size=1,
                                      max_length=2 * tokens, suppress_tokens=[end], suppress_blank=False)


@contextmanager
def opened(folder: str, args: argparse.Namespace) -> Iterator[Whisper]:
    """The Whisper of a folder, converted for CTranslate2 for as long as the context lasts.

    Raises UserError for what is no Whisper folder.
    """
    from transformers.utils import logging

    check_model_name(folder)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    if find_spec("ctranslate2") is None:
        yield Whisper(folder, None, args)
        return
    from ctranslate2.converters import TransformersConverter

    with TemporaryDirectory() as place:
        out = os.path.join(place, "whisper")
        TransformersConverter(folder).convert(out)
        yield Whisper(folder, Path(out), args)
