"""How exact word times are: sentences are spoken again by eSpeak, which tells when each word begins, and aligned.

    python local/check_times.py --exp_dir exp/mini_synth --encoder_dir exp/train_encoder_en_unigram300

The text is given, so that the alignment alone is measured: by the CTC head, and by cross-attention. A word ends where
the next one begins. Clitics that eSpeak speaks as one word ("of the") have one start: such sentences are left out.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import espeak
import numpy as np
import synthesise
import torch

from whisfusion_asr.api import SAMPLE_RATE, Speech2Text, log_probs, token_spans
from whisfusion_asr.bin.arguments import command_parser
from whisfusion_asr.data.tables import read_table
from whisfusion_asr.decoding.times import timed_words
from whisfusion_asr.decoding.words import Word
from whisfusion_asr.errors import exits_cleanly


def spoken(data_dir: Path, utterances: int) -> Iterator[tuple[str, np.ndarray, list[float]]]:
    """Text, recording (S,), and the seconds at which its words begin and the last one ends, spread over the set."""
    texts, voices = read_table(data_dir / "text"), read_table(data_dir / "utt2spk")
    keys = sorted(texts)
    for key in keys[:: max(1, len(keys) // utterances)][:utterances]:
        how = synthesise.draw_conditions(key, 0)
        speaker, text = espeak.speaker(), texts[key]
        speech = speaker.speak(text, how.accent, voices[key], how.rate, how.pitch, how.pitch_range)
        borders = [how.lead + speaker.starts[place] for place in sorted(speaker.starts)]
        if len(borders) == len(text.split()) + 1:
            yield text, synthesise.record(speech, how), borders


@torch.no_grad()
def errors(
    model: Speech2Text, text: str, audio: np.ndarray, borders: list[float], by: str
) -> list[tuple[float, float]]:
    """Of each word how much too late its start and its end are, in seconds."""
    utterance = model.encode("spoken", audio)
    ids, states = model.tokenizer.encode(text), utterance.states
    heard = None
    if by == "ctc":
        heard = log_probs(model.network.ctc(states[None], torch.tensor([len(states)])), 0, len(states))
    words = model.words(ids)
    spans = token_spans(model, states, ids, heard)
    timed = timed_words([Word(word, 1.0) for word, _ in words], [places for _, places in words], spans, len(states),
                        len(audio) / SAMPLE_RATE)  # fmt: skip
    pairs = zip(timed, borders[:-1], borders[1:], strict=True)
    return [(word.start - start, word.end - end) for word, start, end in pairs]


@exits_cleanly
def main() -> None:
    """Run the measurement and print a line for each way of timing."""
    parser: argparse.ArgumentParser = command_parser(__doc__)
    parser.add_argument("--exp_dir", required=True, help="trained model")
    parser.add_argument("--encoder_dir", required=True, help="encoder of its states")
    parser.add_argument("--data_dir", type=Path, default=Path("data/dev"), help="set whose sentences are spoken")
    parser.add_argument("--utts", type=int, default=50, help="number of sentences")
    args = parser.parse_args()
    model = Speech2Text(args.exp_dir, encoder_dir=args.encoder_dir)
    sentences = list(spoken(args.data_dir, args.utts))
    for by in ["ctc"] * (model.network.ctc is not None) + ["attention"]:
        found = np.array([pair for sentence in sentences for pair in errors(model, *sentence, by)]) * 1000
        starts, ends = np.abs(found).T
        print(f"{by}: {len(found)} words of {len(sentences)} sentences; start wrong by {starts.mean():.0f} ms (mean), "
              f"{np.median(starts):.0f} (median), {np.quantile(starts, 0.9):.0f} (9 of 10 at most), "
              f"too late by {found[:, 0].mean():.0f}; end wrong by {ends.mean():.0f}")  # fmt: skip


if __name__ == "__main__":
    main()
