"""The original Whisper over a data directory: transcripts as the diffusion decoder's are written, for comparison."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import exp
from pathlib import Path
from typing import Any
from zlib import compress

import torch

from whisfusion_asr.data.audio import SAMPLE_RATE, AudioTable
from whisfusion_asr.data.whisper_tokens import all_tokens
from whisfusion_asr.decoding.batches import token_batches
from whisfusion_asr.decoding.output import Transcript
from whisfusion_asr.decoding.words import Word
from whisfusion_asr.errors import UserError
from whisfusion_asr.pretrained.whisper_generate import ORIGINAL_PRECISIONS, Generated, OriginalWhisper


@dataclass(frozen=True)
class OriginalSettings:
    """A YAML of conf/ar_*.yaml: `decoder: whisper` and the options of OriginalWhisper.

    batch_size: utterances that are searched together; 1 for times to be compared
    raises UserError: a number below 1, another decoder, an unknown precision
    """

    decoder: str = "whisper"
    language: str = "en"
    task: str = "transcribe"
    num_beams: int = 1
    max_new_tokens: int | None = None
    suppress: bool = True
    precision: str = "float32"
    batch_size: int = 8

    def __post_init__(self) -> None:
        if self.decoder != "whisper":
            raise UserError(f"decoder: expected whisper, got {self.decoder!r}")
        for name in ("num_beams", "max_new_tokens", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name}: expected at least 1, got {value}")
        if self.precision not in ORIGINAL_PRECISIONS:
            raise UserError(f"precision: expected {', '.join(ORIGINAL_PRECISIONS)}, got {self.precision!r}")

    def model(self, whisper_dir: str, device: str) -> OriginalWhisper:
        """The model with these options."""
        conf = asdict(self)
        return OriginalWhisper(whisper_dir, device=device,
                               **{key: value for key, value in conf.items() if key not in ("decoder", "batch_size")})


def transcripts(
    model: OriginalWhisper, whisper_dir: str | Path, data_dir: str | Path, chosen: Sequence[tuple[str, int]],
    batch_size: int,
) -> Iterator[Transcript]:
    """Transcribe some utterances, `(key, samples)`, of a directory in their order.

    Seconds of a batch are shared out equally among its utterances; reading audio is not timed, and the first
    utterance is transcribed once before: what only a first call costs is in nobody's time.
    raises UserError: unreadable audio, an utterance of more than 30 s
    """
    audio, describe = AudioTable(data_dir), _Describer(whisper_dir, model.search["num_beams"])
    for number, group in enumerate(token_batches(chosen, lambda _: 1, batch_size)):
        model.encoder.check_durations([samples for _, samples in group], [key for key, _ in group])
        heard = [torch.from_numpy(audio[key]) for key, _ in group]
        if not number:
            model(heard[:1])
            model.cpu_seconds = dict.fromkeys(model.cpu_seconds, 0.0)
        batch = model(heard)
        timing = {part: seconds / len(group) for part, seconds in batch.seconds.items()}
        for (key, samples), generated in zip(group, batch.utterances, strict=True):
            yield describe(key, samples / SAMPLE_RATE, generated, timing)


class _Describer:
    """Makes a line of candidates.jsonl of what Whisper wrote."""

    def __init__(self, whisper_dir: str | Path, num_beams: int) -> None:
        self.tokenizer, self.num_beams = all_tokens(whisper_dir), num_beams

    def __call__(self, key: str, duration: float, found: Generated, timing: dict[str, float]) -> Transcript:
        pieces = [self.tokenizer.pieces[token] for token in found.tokens]
        text = self.tokenizer.join(pieces)
        probabilities = [exp(value) for value in found.log_probs]
        chosen = probabilities + ([] if found.end_log_prob is None else [exp(found.end_log_prob)])
        confidence = sum(chosen) / len(chosen) if chosen else 0.0
        words = [Word(word, min(probabilities[place] for place in places)).record()
                 for word, places in self.tokenizer.words(pieces)]
        candidate: dict[str, Any] = {
            "text": text, "tokens": found.tokens, "confidence": confidence,
            "token_confidence": [round(each, 5) for each in probabilities],
            "mean_log_prob": round(found.mean_log_prob, 5), "no_speech": found.no_speech,
            "compression_ratio": round(compression_ratio(text), 3),
        }  # fmt: skip
        flags = (["silence"] if not text else []) + (["canvas_full"] if found.end_log_prob is None else [])
        return Transcript(
            key, duration, text, pieces, found.tokens, confidence, passes=found.steps,
            rows=found.steps * self.num_beams, candidates=[candidate], selection="score", words=words, flags=flags,
            timing=dict(timing),
        )  # fmt: skip


def compression_ratio(text: str) -> float:
    """Bytes of a text over those of its zlib form, as Whisper's own test for repetitions; 0 for an empty text."""
    data = text.encode()
    return len(data) / len(compress(data)) if data else 0.0
