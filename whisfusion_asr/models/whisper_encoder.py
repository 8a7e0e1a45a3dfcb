"""Whisper's encoder, frozen: 16 kHz speech in, states of its true length out.

The weights come from a folder in Hugging Face's layout (`config.json`, `model.safetensors`) or from its hub. The
log-mel front end is ours: it takes windows of any length, in batches, on the device of the speech. `transformers` is
imported only when an encoder is built.
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whisfusion_asr.errors import UserError

SAMPLE_RATE = 16000
N_FFT = 400
HOP = 160  # samples between two log-mel frames
SAMPLES_PER_STATE = 2 * HOP  # the second convolution halves the rate: 50 states a second

CONTEXTS = ("padded", "trimmed")
KEPT = ("true_length", "padded")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class TooLong(UserError):
    """An utterance of more than 30 s; `row` is its place in the batch, `reason` the message without a subject."""

    def __init__(self, row: int, reason: str, name: str | None = None) -> None:
        super().__init__(f"{name or f'utterance {row} of the batch'} {reason}")
        self.row, self.reason = row, reason


class WhisperEncoder(nn.Module):
    """States of a frozen Whisper encoder (no gradient, always in eval mode).

    model: folder in Hugging Face's layout, or a name on its hub such as `openai/whisper-small`
    context: what the encoder hears after the speech. `padded`: silence up to 30 s, as Whisper was trained and as in the
        paper. `trimmed`: silence of `tail_seconds`, two to five times faster on short utterances
    tail_seconds: length of the silence that `trimmed` keeps. The CTC WER of a head trained on 500 utterances is 37.8
        without silence, 37.4 with 1 s, 37.6 with the whole window: no difference shown (egs/librispeech/asr1/NOTES.md)
    keep: which states are given out. `true_length`: those of the speech alone; `padded`: those of the silence behind
        it too (with context `padded` always 1500, as published)
    pool: the mean of this many states becomes one (1: as they are)
    precision: of the weights and layers, `float32` or `bfloat16`; the log-mel and the pooling stay float32. bfloat16
        is for GPUs, never the default: processors without instructions for it take several times as long
    raises UserError: weights that are missing or not Whisper's, an option out of range
    """

    brings_weights = True  # no checkpoint holds them: they stay in the folder they came from

    def __init__(
        self,
        model: str,
        context: str = "padded",
        tail_seconds: float = 1.0,
        keep: str = "true_length",
        pool: int = 1,
        precision: str = "float32",
    ) -> None:
        super().__init__()
        _check_options(context, tail_seconds, keep, pool, precision)
        self.context, self.keep, self.pool = context, keep, pool
        self.tail = math.ceil(tail_seconds * SAMPLE_RATE / SAMPLES_PER_STATE)
        self.whisper = _load_encoder(model).to(PRECISIONS[precision]).requires_grad_(False).eval()
        config = self.whisper.config
        self.output_size: int = config.d_model
        self.max_states: int = config.max_source_positions
        self.frame_shift = pool * SAMPLES_PER_STATE / SAMPLE_RATE  # seconds from one state to the next
        filters = torch.from_numpy(mel_filters(config.num_mel_bins)).float()
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("stft_window", torch.hann_window(N_FFT), persistent=False)

    def train(self, mode: bool = True) -> "WhisperEncoder":
        """Stay in eval mode whatever the model around it does: a frozen encoder has no training mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, speech: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a batch; an utterance's states do not depend on its neighbours.

        speech: (B, S) float, 16 kHz, in [-1, 1]
        lengths: (B,) int, samples of each utterance, at most 480,000 (30 s)
        returns: states (B, T, D) float32, zero behind each utterance's own; their numbers (B,) int64, with
            `true_length` ceil(ceil(samples / 320) / pool)
        raises TooLong: an utterance of more than 30 s
        """
        lengths = lengths.to(speech.device, torch.int64)
        self.check_durations(lengths.tolist())
        counts = (lengths + SAMPLES_PER_STATE - 1) // SAMPLES_PER_STATE
        heard = self._states_heard(counts)
        # A half-precision run gives other states than the float32 ones that are dumped.
        with torch.autocast(speech.device.type, enabled=False):
            mel = log_mel(speech.float(), lengths, 2 * heard, self.filters, self.stft_window, self.max_states)
            states = self._encode(mel, heard)
        if self.keep == "padded":
            counts = heard
        states = states[:, : int(counts.max())]
        states = states.masked_fill(_behind(counts, states.shape[1])[:, :, None], 0.0)
        return _mean_of_groups(states, counts, self.pool)

    def check_durations(self, samples: Sequence[int], names: Sequence[str] | None = None) -> None:
        """Raise TooLong for the longest utterance if it does not fit into Whisper's window of 30 s.

        samples: B numbers of samples; names: B utterances, for the message
        """
        limit = self.max_states * SAMPLES_PER_STATE
        longest = max(samples)
        if longest > limit:
            row, seconds = list(samples).index(longest), limit / SAMPLE_RATE
            raise TooLong(
                row,
                f"lasts {longest / SAMPLE_RATE:.2f} s, Whisper's encoder takes at most {seconds:g} s: cut it into "
                f"segments, or leave it out with `whisfusion data filter DIR --max_seconds {seconds:g}`",
                names and names[row],
            )

    def window(self, samples: int) -> int:
        """Samples that the encoder works through for an utterance of so many, the silence behind it included."""
        count = torch.tensor(-(-samples // SAMPLES_PER_STATE))
        return int(self._states_heard(count)) * SAMPLES_PER_STATE

    def _states_heard(self, counts: Tensor) -> Tensor:
        """(B,) states of the speech -> (B,) states of the encoder's input, the silence behind the speech included."""
        if self.context == "padded":
            return torch.full_like(counts, self.max_states)
        return (counts + self.tail).clamp(1, self.max_states)

    def _encode(self, mel: Tensor, heard: Tensor) -> Tensor:
        """Run convolutions and layers on windows of any length up to 30 s (`transformers` itself insists on 30 s).

        mel: (B, bins, 2W), zero behind each window: what the convolutions see behind a window that is alone
        heard: (B,) int, states of each window, the longest W
        returns: (B, W, D), arbitrary values behind each window
        """
        whisper = self.whisper
        x = F.gelu(whisper.conv1(mel.to(whisper.conv1.weight.dtype)))
        # The last state of a window reaches only to its last frame, so conv1's output needs no second masking.
        x = F.gelu(whisper.conv2(x)).transpose(1, 2)  # (B, D, W) -> (B, W, D)
        x = x + whisper.embed_positions.weight[: x.shape[1]]
        behind = _behind(heard, x.shape[1])
        mask = None
        if behind.any():
            mask = x.new_zeros(behind.shape).masked_fill(behind, torch.finfo(x.dtype).min)
            mask = mask[:, None, None, :]  # (B, 1, 1, W), added to the scores of the keys
        for layer in whisper.layers:
            x = x + layer.self_attn(layer.self_attn_layer_norm(x), attention_mask=mask)[0]
            x = x + layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(x))))
        return whisper.layer_norm(x).float()


def log_mel(
    speech: Tensor, lengths: Tensor, frames: Tensor, filters: Tensor, stft_window: Tensor, max_states: int = 1500
) -> Tensor:
    """Whisper's log-mel of each utterance followed by silence.

    speech: (B, S) float32, 16 kHz; lengths: (B,) int, samples of each utterance
    frames: (B,) int, log-mel frames wanted of each utterance; F is the largest
    filters: (bins, 201), from `mel_filters`; stft_window: (400,)
    max_states: half the frames of the full window (1500: 30 s)
    returns: (B, bins, F), zero behind each utterance's frames. The floor (8 below the maximum) is the utterance's own.
    """
    count = int(frames.max())
    # Behind the last frame three hops of silence keep the reflection at the end of the signal out of sight;
    # a full window is reflected as Whisper's own is.
    size = min(count * HOP + 3 * HOP, max_states * SAMPLES_PER_STATE)
    speech = F.pad(speech, (0, max(0, size - speech.shape[1])))[:, :size]
    speech = speech.masked_fill(_behind(lengths, size), 0.0)
    spectrum = torch.stft(speech, N_FFT, HOP, window=stft_window, return_complex=True)[:, :, :count]
    power = (spectrum.real**2 + spectrum.imag**2).contiguous()
    mel = (filters @ power).clamp(min=1e-10).log10()  # (B, bins, F)
    behind = _behind(frames, count)[:, None]
    peak = mel.masked_fill(behind, -torch.inf).amax(dim=(1, 2), keepdim=True)
    return ((torch.maximum(mel, peak - 8.0) + 4.0) / 4.0).masked_fill(behind, 0.0)


def mel_filters(bins: int) -> np.ndarray:
    """Slaney's triangular filters for 16 kHz: linear below 1 kHz, logarithmic above, of equal area.

    returns: (bins, 201) float64
    """
    step = 200 / 3  # Hz per mel below 1 kHz
    log_step = math.log(6.4) / 27
    top = 1000 / step + math.log(SAMPLE_RATE / 2 / 1000) / log_step  # 8 kHz in mel
    mel = np.linspace(0, top, bins + 2)
    hertz = np.where(mel < 1000 / step, mel * step, 1000 * np.exp(log_step * (mel - 1000 / step)))
    bin_hertz = np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    low, middle, high = hertz[:-2, None], hertz[1:-1, None], hertz[2:, None]
    rising, falling = (bin_hertz - low) / (middle - low), (high - bin_hertz) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)


def _behind(lengths: Tensor, size: int) -> Tensor:
    """(B,) lengths -> (B, size) bool, True at the places behind each row's length."""
    return torch.arange(size, device=lengths.device) >= lengths[:, None]


def _mean_of_groups(states: Tensor, counts: Tensor, pool: int) -> tuple[Tensor, Tensor]:
    """Mean of every `pool` states; the last group of an utterance may be smaller.

    states: (B, T, D), zero behind each utterance; counts: (B,)
    returns: (B, ceil(T / pool), D) and (B,)
    """
    if pool == 1:
        return states, counts
    batch, length, width = states.shape
    groups = -(-length // pool)
    sums = F.pad(states, (0, 0, 0, groups * pool - length)).view(batch, groups, pool, width).sum(2)
    starts = torch.arange(0, groups * pool, pool, device=states.device)
    members = (counts[:, None] - starts).clamp(1, pool)  # (B, groups)
    return sums / members[:, :, None], (counts + pool - 1) // pool


def _check_options(context: str, tail_seconds: float, keep: str, pool: int, precision: str) -> None:
    if context not in CONTEXTS:
        raise UserError(f"encoder_conf: context is '{context}', expected one of {', '.join(CONTEXTS)}")
    if not 0 <= tail_seconds <= 30:
        raise UserError(f"encoder_conf: tail_seconds is {tail_seconds}, expected 0 to 30")
    if keep not in KEPT:
        raise UserError(f"encoder_conf: keep is '{keep}', expected one of {', '.join(KEPT)}")
    if pool < 1:
        raise UserError(f"encoder_conf: pool is {pool}, expected 1 or more")
    if precision not in PRECISIONS:
        raise UserError(f"encoder_conf: precision is '{precision}', expected one of {', '.join(PRECISIONS)}")


def _load_encoder(model: str) -> nn.Module:
    return load_part(model, "encoder")


def load_part(model: str, part: str) -> nn.Module:
    """Read a Whisper model and keep its `encoder` or its `decoder`.

    raises UserError: no weights, or some of this part are missing
    """
    check_model_name(model)
    try:
        from safetensors import SafetensorError
        from transformers import WhisperModel
        from transformers.utils import logging
    except ImportError as error:
        raise UserError(
            f"{part} whisper needs the package transformers ({error}): pip install transformers"
        ) from error
    logging.disable_progress_bar()  # a bar for reading a local file is noise in a log
    told = logging.get_verbosity()
    logging.set_verbosity_error()  # it lists the other part's tensors as missing; those of this part are checked below
    try:
        whisper, info = WhisperModel.from_pretrained(model, output_loading_info=True)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{model}: no Whisper weights could be read ({reason}): give a complete folder with --whisper_dir DIR"
        ) from error
    finally:
        logging.set_verbosity(told)
    missing = sorted(name for name in info["missing_keys"] if name.startswith(f"{part}."))
    if missing:  # transformers would go on with random values
        raise UserError(f"{model}: the weights lack {len(missing)} tensors of the {part} (first: {missing[0]})")
    return getattr(whisper, part)


def check_model_name(model: str) -> None:
    """Refuse what is neither a folder with a Whisper model in Hugging Face's layout nor a name on its hub.

    raises UserError: saying what was found instead
    """
    folder = Path(model)
    if not folder.is_dir():
        if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", model):
            raise UserError(
                f"{model}: no such folder; expected a Whisper folder, or a hub name like openai/whisper-small"
            )
        return
    config = folder / "config.json"
    if (folder / "model.bin").exists():
        raise UserError(
            f"{model}: a CTranslate2 (faster-whisper) folder; expected Hugging Face's layout with config.json and "
            "model.safetensors, as the hub's openai/whisper-* have it"
        )
    if not config.is_file():
        raise UserError(f"{config}: no such file; expected a Whisper folder in Hugging Face's layout")
    try:
        kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{config}: not a JSON object ({error}): download the model again") from error
    if kind != "whisper":
        raise UserError(f"{config}: model_type is '{kind}', expected 'whisper'")
