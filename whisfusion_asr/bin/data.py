"""Kaldi data directories: check, mend, filter, split, choose, combine, perturb, and make them of your own files.

python -m whisfusion_asr.bin.data validate data/train
python -m whisfusion_asr.bin.data fix data/train
python -m whisfusion_asr.bin.data filter data/train --min_seconds 0.1 --max_seconds 30 --max_loss 0.05
python -m whisfusion_asr.bin.data split data/test 4
python -m whisfusion_asr.bin.data subset --shortest data/train 100 data/train_short
python -m whisfusion_asr.bin.data combine data/all data/train data/more
python -m whisfusion_asr.bin.data perturb_speed data/train data/train_sp --factors 0.9 1.0 1.1
python -m whisfusion_asr.bin.data spk2utt data/train/utt2spk > data/train/spk2utt
python -m whisfusion_asr.bin.data from_folder --wavs DIR --transcripts FILE --out data/train
python -m whisfusion_asr.bin.data from_tsv --tsv FILE --out data/train
"""

import argparse
import os
import sys
from pathlib import Path

from whisfusion_asr.bin.arguments import boolean, command_parser
from whisfusion_asr.data import imports, kaldi_dir
from whisfusion_asr.data.fix import fix
from whisfusion_asr.data.speed import perturb_speed
from whisfusion_asr.data.tables import counted, format_table, read_table, write_table
from whisfusion_asr.data.validate import inspect, invert
from whisfusion_asr.errors import UserError, exits_cleanly


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Run one of the subcommands."""
    parser = command_parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_checks(commands)
    _add_choices(commands)
    _add_imports(commands)
    args = parser.parse_args(argv)
    args.run(args)


def _add(commands: argparse._SubParsersAction, name: str, run: object, summary: str) -> argparse.ArgumentParser:
    names = {name.replace("_", "-")} - {name}
    parser = commands.add_parser(name, aliases=sorted(names), help=summary, description=summary)
    parser.set_defaults(run=run)
    return parser


def _add_checks(commands: argparse._SubParsersAction) -> None:
    check = _add(commands, "validate", _validate, "print every problem of a directory; exit code 2 if there is one")
    mend = _add(commands, "fix", _fix, "sort, clean and cut to what is good; the former files go to DIR/.backup")
    for parser in (check, mend):
        parser.add_argument("dir")
        parser.add_argument("--check_audio", type=boolean, default=True, help="decode all audio (false: headers only)")
        parser.add_argument("--allow_empty_text", type=boolean, default=False, help="accept utterances without words")
        parser.add_argument("--nj", type=int, default=os.cpu_count(), help="threads that decode")
    # Kaldi's data preparations call `validate_data_dir.sh --no-feats`: there are no features here to be checked.
    check.add_argument("--no_feats", action="store_true", help="accepted for Kaldi's scripts; changes nothing")
    drop = _add(commands, "filter", _filter, "drop utterances that cannot be trained on (not for test sets)")
    drop.add_argument("dir")
    drop.add_argument("--min_seconds", type=float, default=0.1)
    drop.add_argument("--max_seconds", type=float, default=30.0)
    drop.add_argument("--max_loss", type=float, default=0.05, help="share that may be dropped; more is an error")


def _add_choices(commands: argparse._SubParsersAction) -> None:
    parts = _add(commands, "split", _split, "write DIR/splitN/1 to N, consecutive utterances")
    parts.add_argument("dir")
    parts.add_argument("parts", type=int)
    some = _add(commands, "subset", _subset, "SRC N OUT, or SRC OUT with --utt_list: a directory with some utterances")
    some.add_argument("dirs", nargs="+", metavar="SRC [N] OUT")
    how = some.add_mutually_exclusive_group()
    how.add_argument("--utt_list", help="file whose first column are the utterances")
    for choice in kaldi_dir.CHOICES[1:]:
        how.add_argument(f"--{choice}", dest="by", action="store_const", const=choice)
    union = _add(commands, "combine", _combine, "OUT SRC...: the union of directories")
    union.add_argument("out")
    union.add_argument("dirs", nargs="+")
    speed = _add(commands, "perturb_speed", _perturb_speed, "SRC OUT: copies that speak slower and faster")
    speed.add_argument("dir", metavar="SRC")
    speed.add_argument("out", metavar="OUT")
    speed.add_argument("--factors", type=float, nargs="+", required=True, help="of the speed; 1 is SRC as it is")
    speed.add_argument("--nj", type=int, help="processes (default: one for each core)")
    inverse = _add(commands, "spk2utt", _spk2utt, "print the inverse of an utt2spk file")
    inverse.add_argument("utt2spk")


def _add_imports(commands: argparse._SubParsersAction) -> None:
    folder = _add(commands, "from_folder", _from_folder, "make a directory of audio files and a file of transcripts")
    folder.add_argument("--wavs", required=True, help="folder, searched with its subfolders")
    folder.add_argument("--transcripts", required=True, help="lines `name text`; name: path, file name or stem")
    folder.add_argument(
        "--speaker_from", default="utterance",
        help="utterance (unknown), folder, or a regular expression whose first group is the speaker in the path",
    )  # fmt: skip
    table = _add(commands, "from_tsv", _from_tsv, "make a directory of a table with the columns path and text")
    table.add_argument("--tsv", required=True, help="columns path, text; optional speaker, utt_id, start, end")
    table.add_argument("--audio_root", help="where relative paths start (default: the folder of the table)")
    for parser in (folder, table):
        parser.add_argument("--out", required=True)
        parser.add_argument("--channel", type=int, help="of recordings with several, from 0 (default: their mean)")


def _validate(args: argparse.Namespace) -> None:
    directory = Path(args.dir)
    findings = inspect(directory, args.check_audio, args.allow_empty_text, args.nj)
    for line in findings.warnings:
        print(f"warning: {line}", file=sys.stderr)
    if findings.problems:
        raise UserError("\n".join([f"{directory}: {counted(len(findings.problems), 'problem')}", *findings.problems]))
    write_table(directory / "utt2num_samples", findings.num_samples)
    write_table(directory / "spk2utt", invert(read_table(directory / "utt2spk").items()))
    print(f"{directory}: valid, {len(findings.num_samples)} utterances, "
          f"{sum(findings.num_samples.values()) / kaldi_dir.SAMPLE_RATE / 3600:.2f} h")  # fmt: skip


def _fix(args: argparse.Namespace) -> None:
    print("\n".join(fix(args.dir, args.check_audio, args.allow_empty_text, args.nj)))


def _filter(args: argparse.Namespace) -> None:
    print(kaldi_dir.filter_dir(args.dir, args.min_seconds, args.max_seconds, args.max_loss))


def _split(args: argparse.Namespace) -> None:
    print("\n".join(map(str, kaldi_dir.split(args.dir, args.parts))))


def _subset(args: argparse.Namespace) -> None:
    source, *number, out = args.dirs if len(args.dirs) > 1 else [*args.dirs, ""]
    if not out or len(number) != (args.utt_list is None) or not all(text.isdecimal() for text in number):
        raise UserError(f"subset: got {' '.join(args.dirs)}; expected SRC N OUT, or --utt_list FILE SRC OUT")
    keys = (
        list(read_table(args.utt_list))
        if args.utt_list
        else kaldi_dir.choose(source, int(number[0]), args.by or "spread")
    )
    print(f"{out}: {kaldi_dir.subset(source, out, keys)} utterances of {source}")


def _combine(args: argparse.Namespace) -> None:
    for line in kaldi_dir.combine(args.out, args.dirs):
        print(f"warning: {line}", file=sys.stderr)
    print(f"{args.out}: combined {len(args.dirs)} directories")


def _perturb_speed(args: argparse.Namespace) -> None:
    for line in perturb_speed(args.dir, args.out, args.factors, args.nj):
        print(f"warning: {line}", file=sys.stderr)
    print(f"{args.out}: {args.dir} at the speeds {' '.join(f'{factor:g}' for factor in args.factors)}")


def _spk2utt(args: argparse.Namespace) -> None:
    print(format_table(invert(read_table(args.utt2spk).items())), end="")


def _from_folder(args: argparse.Namespace) -> None:
    for line in imports.from_folder(args.wavs, args.transcripts, args.out, args.speaker_from, args.channel):
        print(f"warning: {line}", file=sys.stderr)
    print(f"{args.out}: made; now check it with utils/validate_data_dir.sh {args.out}")


def _from_tsv(args: argparse.Namespace) -> None:
    imports.from_tsv(args.tsv, args.out, args.audio_root, args.channel)
    print(f"{args.out}: made; now check it with utils/validate_data_dir.sh {args.out}")


if __name__ == "__main__":
    main()
