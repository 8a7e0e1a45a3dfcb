"""The original Whisper, whole: 30 s windows in, the tokens of transformers' left-to-right search out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whisfusion_asr.errors import UserError
from whisfusion_asr.models.running import RunOptions, prepare
from whisfusion_asr.models.whisper_encoder import PRECISIONS, WhisperEncoder
from whisfusion_asr.models.whisper_vocabulary import END, prefix_ids, read_json, read_vocabulary

ORIGINAL_PRECISIONS = (*PRECISIONS, "int8")
NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")  # the name in newer and in older vocabularies


@dataclass(frozen=True)
class Generated:
    """What Whisper wrote of one utterance.

    tokens: Whisper's ids, without prefix and end; log_probs: of each token, natural logarithm
    end_log_prob: of the end of the text; None if the search ran out of room before it
    no_speech: probability of Whisper's token for "nothing is said" as the first one; None for a model without it
    """

    tokens: list[int]
    log_probs: list[float]
    end_log_prob: float | None
    no_speech: float | None

    @property
    def steps(self) -> int:
        """Tokens that were chosen one after the other, the end included."""
        return len(self.tokens) + (self.end_log_prob is not None)

    @property
    def mean_log_prob(self) -> float:
        """Of all that was chosen, as Whisper's own threshold on it is meant; 0 if nothing was."""
        total = sum(self.log_probs) + (self.end_log_prob or 0.0)
        return total / max(1, self.steps)


@dataclass(frozen=True)
class Batch:
    """Results of a batch in its order, and the wall-clock seconds of `encode` and `decode` for all of it."""

    utterances: list[Generated]
    seconds: dict[str, float]


class OriginalWhisper:
    """Whisper as it was published: transcripts without timestamps, of all 1500 states of a 30 s window.

    The search is `generate` of transformers' GenerationMixin behind a given prefix, which is what its Whisper class
    runs for up to 30 s without timestamps. States that are cut to the speech are never used: the decoder knows the end
    by the silence behind it, and repeats itself where there is none.

    model: folder in Hugging Face's layout; language, task: for multilingual models, as `en`, `transcribe`
    num_beams: 1 is greedy
    max_new_tokens: at most so many tokens, the end included; None for half the decoder's places, as Whisper's program
    suppress: never write the tokens that the model's generation_config.json bans (symbols, other special tokens)
    precision: `float32`, `bfloat16` for GPUs, or `int8`: the decoder's linear layers on 8-bit integers, for CPUs
    raises UserError: incomplete weights, a precision that the device has not, an unknown language or task, more tokens
        than the decoder has places for
    """

    def __init__(
        self,
        model: str,
        language: str = "en",
        task: str = "transcribe",
        num_beams: int = 1,
        max_new_tokens: int | None = None,
        suppress: bool = True,
        precision: str = "float32",
        device: str = "cpu",
    ) -> None:
        vocabulary = read_vocabulary(model)
        self.prefix = prefix_ids(vocabulary, model, language, task)
        self.eos_id = vocabulary[END]
        self.no_speech_id = next((vocabulary[name] for name in NO_SPEECH if name in vocabulary), None)
        int8 = precision == "int8"
        kept = "float32" if int8 else precision
        self.encoder = WhisperEncoder(model, context="padded", keep="padded", precision=kept).to(device)
        self.whisper = _load(model).to(device, PRECISIONS[kept])
        if int8:
            prepare(self.whisper, RunOptions(quantize="int8"))
        places = self.whisper.config.max_target_positions
        max_new_tokens = places // 2 if max_new_tokens is None else max_new_tokens
        if len(self.prefix) + max_new_tokens > places:
            raise UserError(f"max_new_tokens: {max_new_tokens} do not fit behind the {len(self.prefix)} tokens that "
                            f"ask for a transcript; {model} has {places} places")  # fmt: skip
        banned = read_json(model, "generation_config.json") if suppress else {}
        self.search: dict[str, Any] = {
            "num_beams": num_beams, "do_sample": False, "max_new_tokens": max_new_tokens, "length_penalty": 1.0,
            "early_stopping": False, "suppress_tokens": banned.get("suppress_tokens") or None,
            "begin_suppress_tokens": banned.get("begin_suppress_tokens") or None,
        }  # fmt: skip
        self.device = torch.device(device)
        self.cpu_seconds = {"encode": 0.0, "decode": 0.0}  # of this process so far; other work disturbs them less

    @torch.no_grad()
    def __call__(self, speech: Sequence[Tensor]) -> Batch:
        """Transcribe a batch. speech: B waveforms (S,) float32, 16 kHz.

        raises TooLong: an utterance of more than 30 s
        """
        start, cpu = self._now(), time.process_time()
        lengths = torch.tensor([len(each) for each in speech])
        padded = torch.nn.utils.rnn.pad_sequence(list(speech), batch_first=True).to(self.device)
        states, _ = self.encoder(padded, lengths)
        encoded, cpu_encoded = self._now(), time.process_time()
        found = self._generate(states.to(self.whisper.dtype))
        done = self._now()
        self.cpu_seconds["encode"] += cpu_encoded - cpu
        self.cpu_seconds["decode"] += time.process_time() - cpu_encoded
        no_speech = self._no_speech(states.to(self.whisper.dtype))
        log_probs = self.whisper.compute_transition_scores(
            found.sequences, found.scores, getattr(found, "beam_indices", None),
            normalize_logits=self.search["num_beams"] == 1,  # a beam search's scores are normalised already
        )
        rows = found.sequences[:, len(self.prefix) :].tolist()
        results = [self._result(row, values, silent) for row, values, silent in
                   zip(rows, log_probs.tolist(), no_speech, strict=True)]
        return Batch(results, {"encode": encoded - start, "decode": done - encoded})

    def _generate(self, states: Tensor) -> Any:
        """transformers' output for states (B, 1500, D)."""
        from transformers import GenerationConfig, GenerationMixin
        from transformers.modeling_outputs import BaseModelOutput

        config = GenerationConfig(
            **self.search, eos_token_id=self.eos_id, pad_token_id=self.eos_id, decoder_start_token_id=self.prefix[0],
            use_cache=True, return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        prefix = torch.tensor([self.prefix] * len(states), device=self.device)
        heard = torch.ones(states.shape[:2], dtype=torch.long, device=self.device)
        return GenerationMixin.generate(
            self.whisper, generation_config=config, attention_mask=heard, decoder_input_ids=prefix,
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
        )  # fmt: skip

    def _no_speech(self, states: Tensor) -> list[float | None]:
        if self.no_speech_id is None:
            return [None] * len(states)
        start = torch.full((len(states), 1), self.prefix[0], device=self.device)
        hidden = self.whisper.model.decoder(input_ids=start, encoder_hidden_states=states).last_hidden_state
        return self.whisper.proj_out(hidden[:, 0]).float().softmax(-1)[:, self.no_speech_id].tolist()

    def _result(self, row: list[int], log_probs: list[float], no_speech: float | None) -> Generated:
        """Tokens in front of the end; special tokens among them, timestamps for example, are no text."""
        ends = self.eos_id in row
        size = row.index(self.eos_id) if ends else len(row)
        text = [place for place in range(size) if row[place] < self.eos_id]
        return Generated([row[i] for i in text], [log_probs[i] for i in text], log_probs[size] if ends else None,
                         no_speech)  # fmt: skip

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def _load(model: str) -> Any:
    """The whole model in eval mode. Raises UserError for weights that lack a tensor of the decoder."""
    from transformers import GenerationConfig, WhisperForConditionalGeneration

    whisper, info = WhisperForConditionalGeneration.from_pretrained(model, output_loading_info=True)
    missing = sorted(name for name in info["missing_keys"] if name.startswith("model.decoder."))
    if missing or not whisper.config.decoder_layers:
        first = f" (first: {missing[0]})" if missing else ""
        raise UserError(f"{model}: the weights lack {len(missing)} tensors of the decoder{first}: an encoder alone "
                        "writes no text; give the complete model")  # fmt: skip
    whisper.generation_config = GenerationConfig()  # what a search is not told it would take from the folder's
    return whisper.eval()
