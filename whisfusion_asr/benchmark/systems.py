"""What `whisfusion benchmark decode` compares with random weights: each system is a function of one Bench."""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from whisfusion_asr.benchmark.train import PUBLISHED_SLOTS, PUBLISHED_STATES, STATES_PER_SECOND
from whisfusion_asr.decoding.autoregressive import BeamOptions, beam_search
from whisfusion_asr.decoding.engine import Decoded, Job, decode
from whisfusion_asr.decoding.given import start_canvas
from whisfusion_asr.decoding.pdd import Candidate, PddOptions, candidate_uniforms, pdd
from whisfusion_asr.decoding.samplers import Sampler
from whisfusion_asr.diffusion.canvas import CanvasSpec
from whisfusion_asr.models.adapter import Acoustics
from whisfusion_asr.models.causal_decoder import CausalDecoder, NextTokens
from whisfusion_asr.models.diffusion_decoder import DiffusionDecoder
from whisfusion_asr.models.running import RunOptions, prepare
from whisfusion_asr.models.whisfusion import Predictor

MEL_BINS, WHISPER_SMALL_LAYERS = 80, 12
BEAM = 5
UTTERANCE = "utt{}"  # its name decides the random numbers: the same in every system
INT8 = RunOptions(quantize="int8")
Decoding = Callable[[], list[Candidate]]  # the candidates of all utterances


class Networks:
    """The networks of a run, made when first asked for: random weights, which those of one kind share."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.made: dict[Any, nn.Module] = {}

    def encoder(self) -> nn.Module:
        """Whisper-small's encoder, but for the width, in the run's dtype."""
        from transformers import WhisperConfig
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        if "encoder" not in self.made:
            a = self.args
            shape = {"d_model": a.size, "encoder_layers": WHISPER_SMALL_LAYERS, "encoder_attention_heads": a.heads}
            config = WhisperConfig(**shape, encoder_ffn_dim=4 * a.size, num_mel_bins=MEL_BINS,
                                   attn_implementation="sdpa")
            self.made["encoder"] = WhisperEncoder(config).to(a.device, getattr(torch, a.dtype)).eval()
        return self.made["encoder"]

    def decoder(self, kind: type[DiffusionDecoder], options: RunOptions | None = None) -> Any:
        """A decoder of the asked size. options: None for the run's dtype."""
        options = options or RunOptions(self.args.dtype)
        if (kind, options) not in self.made:
            if "weights" not in self.made:
                torch.manual_seed(self.args.seed)
                self.made["weights"] = self._decoder(DiffusionDecoder).to(self.args.device)
            with torch.device("meta"):
                network = self._decoder(kind)
            network.load_state_dict(self.made["weights"].state_dict(), assign=True)
            self.made[kind, options] = prepare(network.eval(), options)
        return self.made[kind, options]

    def _decoder(self, kind: type[DiffusionDecoder]) -> DiffusionDecoder:
        a = self.args
        return kind(a.vocab, a.size, a.size, a.blocks, a.heads, 4 * a.size)


@dataclass(frozen=True)
class Bench:
    """`batch` utterances of `seconds`, decoded together."""

    args: argparse.Namespace
    seconds: float
    networks: Networks
    batch: int = 1

    @property
    def tokens(self) -> int:
        """Tokens of the text."""
        return math.ceil(self.seconds * self.args.tokens_per_second)

    @property
    def heard(self) -> int:
        """States of the true length."""
        return min(PUBLISHED_STATES, round(self.seconds * STATES_PER_SECOND))

    def states(self, frames: int) -> Acoustics:
        """Random encoder states (B, T, D)."""
        torch.manual_seed(self.args.seed)
        table = torch.randn(1, PUBLISHED_STATES, self.args.size)[:, :frames].to(self.args.device)
        lengths = torch.full((self.batch,), frames, device=self.args.device)
        return Acoustics(table.repeat(self.batch, 1, 1), lengths)

    @property
    def mel(self) -> Tensor:
        """Random log-mel frames of padded windows of 30 s, (B, bins, 3000)."""
        return torch.randn(self.batch, MEL_BINS, 2 * PUBLISHED_STATES).to(self.args.device)


def encoder(bench: Bench) -> Callable[[], Tensor]:
    """Whisper-small's encoder on a padded window of 30 s: the unit of the other times, E."""
    network = bench.networks.encoder()
    mel = bench.mel.to(next(network.parameters()).dtype)
    return torch.no_grad()(lambda: network(mel).last_hidden_state)


def released(bench: Bench) -> Decoding:
    """As the released code: canvas of 256, 1,500 states, keys and values of every row computed in every pass."""
    network = bench.networks.decoder(DiffusionDecoder)
    options = PddOptions(bench.args.candidates, tuple(bench.args.mask_ratios))
    one = bench.states(PUBLISHED_STATES)
    copies = Acoustics(one.states.repeat(options.candidates, 1, 1), one.lengths.repeat(options.candidates))

    def predict(canvas: Tensor) -> Tensor:
        return network(canvas.to(bench.args.device), network.read(copies, PUBLISHED_SLOTS)).cpu()

    spec = CanvasSpec(bench.args.vocab)
    return torch.no_grad()(lambda: pdd(predict, PUBLISHED_SLOTS, spec, options,
                                       candidate_uniforms(options, UTTERANCE.format(0), PUBLISHED_SLOTS)))


def exact(bench: Bench) -> Decoding:
    """The engine on the published canvas and states: the same result."""
    sampler = Sampler.of("pdd", {"candidates": bench.args.candidates, "mask_ratios": list(bench.args.mask_ratios)})
    return _engine(bench, sampler, PUBLISHED_SLOTS, PUBLISHED_STATES)


def fast(bench: Bench, candidates: int | None = None, options: RunOptions | None = None, **conf: Any) -> Decoding:
    """The engine on a fitted canvas and states of true length."""
    conf |= {"candidates": candidates or bench.args.candidates, "mask_ratios": list(bench.args.mask_ratios)}
    return _engine(bench, Sampler.of("pdd", conf), bench.tokens + bench.args.margin, bench.heard, options)


def fast_few(bench: Bench) -> Decoding:
    """fast with fewer candidates."""
    return fast(bench, bench.args.few_candidates)


def fast_int8(bench: Bench) -> Decoding:
    """fast, linear layers on 8-bit integers."""
    return fast(bench, options=INT8)


def pruned(bench: Bench) -> Decoding:
    """fast, the least confident candidates dropped between the passes. Random weights agree at once: no early stop."""
    return fast(bench, keep=list(bench.args.keep))


def one_row(bench: Bench, options: RunOptions | None = None) -> Decoding:
    """One row on a fitted canvas, a share of the slots filled in each pass."""
    sampler = Sampler.of("topk", {"passes": bench.args.row_passes})
    return _engine(bench, sampler, bench.tokens + bench.args.margin, bench.heard, options)


def one_row_int8(bench: Bench) -> Decoding:
    """one row, linear layers on 8-bit integers."""
    return one_row(bench, INT8)


def one_row_compiled(bench: Bench) -> Decoding:
    """one row, compiled by torch; on CUDA with CUDA graphs. Compiling is not in the time, and takes minutes."""
    mode = "reduce-overhead" if bench.args.device.startswith("cuda") else "default"
    return one_row(bench, RunOptions(bench.args.dtype, compile=mode))


def causal_greedy(bench: Bench, options: RunOptions | None = None) -> Decoding:
    """The same network made causal, left to right with a cache of keys and values."""
    return _left_to_right(bench, 1, options)


def causal_greedy_int8(bench: Bench) -> Decoding:
    """The same, linear layers on 8-bit integers."""
    return causal_greedy(bench, INT8)


def causal_beam(bench: Bench) -> Decoding:
    """The causal network with a beam of 5."""
    return _left_to_right(bench, BEAM)


SYSTEMS: dict[str, Callable[[Bench], Callable[[], Any]]] = {
    "encoder": encoder,
    "released": released,
    "exact": exact,
    "fast": fast,
    "fast few": fast_few,
    "fast int8": fast_int8,
    "pruned": pruned,
    "one row": one_row,
    "one row int8": one_row_int8,
    "one row compiled": one_row_compiled,
    "causal greedy": causal_greedy,
    "causal greedy int8": causal_greedy_int8,
    "causal beam 5": causal_beam,
}
SLOW = ("released", "exact")  # a minute each, at the published size on a CPU
ON_REQUEST = ("one row compiled",)
BATCHED = ("encoder", "fast", "fast few", "fast int8", "pruned", "one row", "one row int8", "one row compiled")


def _engine(bench: Bench, sampler: Sampler, slots: int, frames: int, options: RunOptions | None = None) -> Decoding:
    network, spec = bench.networks.decoder(DiffusionDecoder, options), CanvasSpec(bench.args.vocab)
    acoustics, lengths = bench.states(frames), torch.full((bench.batch,), slots)
    jobs = [Job(UTTERANCE.format(number), start_canvas(slots, spec)) for number in range(bench.batch)]

    @torch.no_grad()
    def work() -> list[Candidate]:
        predict = Predictor(network, network.read(acoustics, slots), lengths)
        found: Sequence[Decoded] = decode(predict, jobs, spec, sampler)
        return [candidate for one in found for candidate in one.candidates]

    return work


def _left_to_right(bench: Bench, beam: int, options: RunOptions | None = None) -> Decoding:
    network, spec = bench.networks.decoder(CausalDecoder, options), CanvasSpec(bench.args.vocab)
    acoustics = bench.states(bench.heard)

    @torch.no_grad()
    def work() -> list[Candidate]:
        next_tokens = NextTokens(network, network.read(acoustics, bench.tokens + 1))

        def without_end(tokens: Tensor, rows: Tensor) -> Tensor:
            log_p = next_tokens(tokens, rows).clone()
            log_p[:, spec.eos_id] = -torch.inf  # random weights might end at once
            return log_p

        limit = bench.tokens  # and the end itself is one call more
        return beam_search(without_end, network.start_id, spec.eos_id, limit, BeamOptions(beam)).candidates

    return work
