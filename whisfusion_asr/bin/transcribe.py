"""Transcribe audio files of any length, rate and number of channels with a trained experiment.

    whisfusion transcribe talk.mp3 --exp_dir exp/mini_synth --encoder_dir exp/train_encoder_en_unigram300
    whisfusion transcribe talk.mp3 --model model.tar
    whisfusion transcribe *.wav --exp_dir exp/mine --config conf/decode_pbeb.yaml --format srt --out subtitles

Prints the transcript, or writes OUT/<file name>.<format> for each file. Words have times (--format json, srt, vtt), by
the CTC head, or by the decoder's cross-attention where there is none.
"""

import sys
from pathlib import Path

from tqdm import tqdm

from whisfusion_asr.bin.arguments import command_parser
from whisfusion_asr.bin.recogniser import add_recogniser_options, open_recogniser
from whisfusion_asr.data.audio import Recording
from whisfusion_asr.decoding.subtitles import FORMATS, render
from whisfusion_asr.errors import UserError, exits_cleanly
from whisfusion_asr.files import atomic_write
from whisfusion_asr.transcription import OVERLAP, WINDOW, Transcriber


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = command_parser(__doc__)
    parser.add_argument("files", nargs="+", help="audio files")
    add_recogniser_options(parser)
    parser.add_argument("--format", default="txt", choices=list(FORMATS), help="what is written")
    parser.add_argument("--out", type=Path, help="folder for one file per input; default: print")
    window = f"seconds decoded at a time; default: {WINDOW:g}, or as many as the training's longest utterance had"
    parser.add_argument("--window", type=float, help=window)
    parser.add_argument("--overlap", type=float, help="seconds that neighbouring windows share; default: "
                        f"{OVERLAP:g}, a third of a window at most")
    args = parser.parse_args(argv)
    names = [Path(file).stem for file in args.files]
    if args.out and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"--out {args.out}: two files are named {twice}; transcribe them into different folders")
    speech2text = open_recogniser(args)
    for file, name in zip(args.files, names, strict=True):
        duration = Recording(file).duration
        with tqdm(total=round(duration, 1), unit="s", desc=name, disable=not sys.stderr.isatty()) as bar:
            transcriber = Transcriber(speech2text, args.window, args.overlap, lambda done, bar=bar: _show(bar, done))
            words = list(transcriber(file))
        text = render(words, args.format, {"file": file, "duration": round(duration, 3)})
        if args.out is None:
            print(text, end="")
            continue
        with atomic_write(args.out / f"{name}.{args.format}") as out:
            out.write(text)


def _show(bar: tqdm, seconds: float) -> None:
    bar.n = round(seconds, 1)
    bar.refresh()


if __name__ == "__main__":
    main()
