"""What a model writes where nobody speaks: noise of several colours and levels, steady and in the rhythm of speech.

    python utils/check_noise.py --exp_dir exp/mini_synth --encoder_dir exp/train_encoder_en_unigram300

Prints each noise in which words were found, and the words a minute of all.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np

from whisfusion_asr.api import SAMPLE_RATE
from whisfusion_asr.bin.arguments import command_parser
from whisfusion_asr.bin.recogniser import add_recogniser_options, open_recogniser
from whisfusion_asr.errors import exits_cleanly

COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0}  # power falls with this power of the frequency
LEVELS = (-50, -30, -10)  # dB below full scale, root mean square
SYLLABLES = 4.0  # swells a second, where the noise has speech's rhythm
SECONDS = 10
LOWEST = 50.0  # Hz; below, brown noise would be a drift


def coloured(colour: float, seed: int) -> np.ndarray:
    """Noise of unit power, (S,) float64."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=SECONDS * SAMPLE_RATE))
    frequency = np.fft.rfftfreq(SECONDS * SAMPLE_RATE, 1 / SAMPLE_RATE)
    noise = np.fft.irfft(spectrum * (frequency > LOWEST) / np.maximum(frequency, LOWEST) ** (colour / 2))
    return noise / np.sqrt(np.mean(noise**2))


def noises() -> Iterator[tuple[str, np.ndarray]]:
    """Name and samples (S,) float32 of each noise; always the same ones."""
    time = np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    swell = np.sqrt(2 / 3) * (1 - np.cos(2 * np.pi * SYLLABLES * time))  # of unit power
    for seed, ((name, colour), level, rhythm) in enumerate(product(COLOURS.items(), LEVELS, ("steady", "rhythmic"))):
        noise = coloured(colour, seed) * (swell if rhythm == "rhythmic" else 1) * 10 ** (level / 20)
        yield f"{name}, {level} dB, {rhythm}", noise.clip(-1, 1).astype(np.float32)


@exits_cleanly
def main() -> None:
    """Transcribe all noises and count."""
    parser = command_parser(__doc__)
    add_recogniser_options(parser)
    args = parser.parse_args()
    model = open_recogniser(args)
    texts = {name: model(samples, name)[0][0] for name, samples in noises()}
    for name, text in texts.items():
        if text:
            print(f"{name}: {text}")
    words, minutes = sum(len(text.split()) for text in texts.values()), len(texts) * SECONDS / 60
    print(f"{words} words in {len(texts)} noises of {SECONDS} s, {words / minutes:.1f} a minute")


if __name__ == "__main__":
    main()
