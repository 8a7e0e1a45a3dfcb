"""Long files against single utterances: a set is joined into one recording, transcribed as such, and scored.

    python utils/check_long.py --exp_dir exp/mini_synth --encoder_dir exp/train_encoder_en_unigram300 \\
        --data_dir data/test --times 1 2

Prints for each number of repetitions the length, the error rate of the whole file, and the peak memory so far; before
them the error rate of the same utterances transcribed one by one with the same settings.
"""

import resource
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import jiwer
import numpy as np
import soundfile

from whisfusion_asr.api import SAMPLE_RATE, Speech2Text
from whisfusion_asr.bin.arguments import command_parser
from whisfusion_asr.bin.recogniser import add_recogniser_options, open_recogniser
from whisfusion_asr.data.audio import AudioTable
from whisfusion_asr.data.tables import read_table
from whisfusion_asr.errors import exits_cleanly
from whisfusion_asr.scoring.normalize import get_normalizer
from whisfusion_asr.transcription import Transcriber

PAUSE = 0.5  # seconds of silence behind each utterance


def join(audio: AudioTable, keys: list[str], times: int, path: Path) -> float:
    """Write the utterances one behind the other, all of them `times` times; returns the minutes. In constant memory."""
    silence = np.zeros(round(PAUSE * SAMPLE_RATE), np.float32)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, channels=1) as file:
        for key in keys * times:
            file.write(audio[key])
            file.write(silence)
        return file.tell() / SAMPLE_RATE / 60


def in_pieces(model: Speech2Text, audio: AudioTable, keys: list[str]) -> Iterator[str]:
    """The transcript of each utterance by itself."""
    for key in keys:
        yield model(audio[key], key)[0][0]


def told(references: list[str], hypothesis: list[str], normalizer: str) -> str:
    """Error rate of all words in order, and the peak memory before they are compared."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    write = get_normalizer(normalizer)
    sides = [write(" ".join(side)) for side in (references, hypothesis)]
    found = jiwer.process_words(*sides)
    return (f"WER {100 * found.wer:.2f} % of {len(sides[0].split())} words ({found.substitutions} wrong, "
            f"{found.deletions} missing, {found.insertions} too many); {memory:.0f} MiB at most")  # fmt: skip


@exits_cleanly
def main() -> None:
    """Run the measurement and print a line for the utterances and one for each long file."""
    parser = command_parser(__doc__)
    add_recogniser_options(parser)
    parser.add_argument("--data_dir", required=True, help="set that is joined")
    parser.add_argument("--times", type=int, nargs="+", default=[1], help="repetitions of the set in a file")
    parser.add_argument("--window", type=float, help="seconds decoded at a time; default: what suits the model")
    parser.add_argument("--normalizer", default="whisper_en", help="of both sides before they are compared")
    args = parser.parse_args()
    model = open_recogniser(args)
    audio, texts = AudioTable(args.data_dir), read_table(Path(args.data_dir) / "text")
    references = list(texts.values())
    print("utterance by utterance:", told(references, list(in_pieces(model, audio, list(texts))), args.normalizer))
    with TemporaryDirectory() as folder:
        for times in args.times:
            path = Path(folder, f"{times}.wav")
            minutes = join(audio, list(texts), times, path)
            words = [word.word for word in Transcriber(model, args.window)(path)]
            print(f"one file of {minutes:.1f} minutes:", told(references * times, words, args.normalizer), flush=True)


if __name__ == "__main__":
    main()
