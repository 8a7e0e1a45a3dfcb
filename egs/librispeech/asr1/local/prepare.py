"""Stage 0 of the LibriSpeech recipe: fetch the parts and write a data directory for each set.

Without options the 960 hours are downloaded from OpenSLR (61 GB, and as much again unpacked). --parts chooses among
them: parts whose name begins with train, dev and test make up the train, valid and test sets, unless --train_parts,
--valid_parts or --test_parts say otherwise. Train parts become one set, valid parts too, each test part its own.

A folder in LibriSpeech's layout with parts of any name:
    local/data.sh --librispeech_dir DIR --parts "train-mini dev-mini test-mini" --train_set train --valid_set dev
Mini LibriSpeech (0.5 GB):
    local/data.sh --parts "train-clean-5 dev-clean-2" --test_parts dev-clean-2 --train_set train --valid_set dev
"""

import argparse
import sys
from pathlib import Path

from archives import OPENSLR, Archives, Part, read_part_list
from corpus import Utterance, find_root, read_genders, read_part, write_set

from whisfusion_asr.bin.arguments import boolean, command_parser
from whisfusion_asr.errors import UserError, exits_cleanly

PARTS = "train-clean-100 train-clean-360 train-other-500 dev-clean dev-other test-clean test-other"


def options() -> argparse.ArgumentParser:
    """The options of local/data.sh; lists are blank-separated."""
    parser = command_parser(__doc__)
    parser.prog = "local/data.sh"
    parser.add_argument(
        "--librispeech_dir", "--corpus_dir", type=Path, help="folder with the parts: nothing is downloaded"
    )
    parser.add_argument("--download_dir", type=Path, default=Path("downloads"), help="place of archives and parts")
    parser.add_argument("--mirror", default="", help=f"addresses of folders with PART.tar.gz, not {OPENSLR[0]}/12")
    parser.add_argument(
        "--part_list", type=Path, default=Path(__file__).with_name("parts.tsv"), help="parts, sizes, MD5"
    )
    parser.add_argument("--remove_archive", type=boolean, default=False, help="true: delete unpacked archives")
    parser.add_argument("--parts", default=PARTS, help="(%(default)s)")
    parser.add_argument("--train_parts", help="parts of the train set (those of --parts named train...)")
    parser.add_argument("--valid_parts", help="parts of the valid set (those of --parts named dev...)")
    parser.add_argument("--test_parts", help="parts that become a test set each (those of --parts named test...)")
    parser.add_argument("--train_set", default="train_960", help="name of the train set (%(default)s)")
    parser.add_argument("--valid_set", default="dev", help="name of the valid set (%(default)s)")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="where the sets are written ($DATADIR)")
    parser.add_argument("--dry_run", type=boolean, default=False, help="true: only say what would be done")
    return parser


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Fetch what is missing, then write the sets."""
    args = options().parse_args(argv)
    sets = choose_sets(args)
    names = list(dict.fromkeys(part for parts in sets.values() for part in parts))
    known = read_part_list(args.part_list)
    folder = args.librispeech_dir
    if folder is None:
        folder = args.download_dir
        archives = Archives(folder, known, args.mirror.split(), args.remove_archive)
        missing = archives.missing(names)
        print(archives.plan(missing), flush=True)
        if not args.dry_run:
            archives.require_space(missing)
            for part in missing:
                archives.fetch(part)
                archives.tidy([part.name])
            archives.tidy(names)
    for name, parts in sets.items():
        print(f"{args.data_dir / name}: {' + '.join(parts)}", flush=True)
    if not args.dry_run:
        write_sets(sets, find_root(folder, names), known, args.data_dir)


def choose_sets(args: argparse.Namespace) -> dict[str, list[str]]:
    """Set -> its parts, from the options.

    raises UserError: a part of no set, two sets of one name, or nothing to do
    """
    parts = args.parts.split()
    chosen = {}
    for role, prefix in (("train", "train"), ("valid", "dev"), ("test", "test")):
        given = getattr(args, f"{role}_parts")
        chosen[role] = [p for p in parts if p.startswith(prefix)] if given is None else given.split()
    used = [part for role in chosen.values() for part in role]
    if args.parts != PARTS and (idle := [part for part in parts if part not in used]):
        raise UserError(
            f"--parts: {', '.join(idle)} would be in no set: name it in --train_parts, --valid_parts or --test_parts"
        )
    sets = [(args.train_set, chosen["train"]), (args.valid_set, chosen["valid"])]
    sets += [(part.replace("-", "_"), [part]) for part in chosen["test"]]
    sets = [(name, its) for name, its in sets if its]
    if not sets:
        raise UserError(
            "--parts: no part is named, expected for instance --parts 'train-clean-100 dev-clean test-clean'"
        )
    if len(dict(sets)) < len(sets):
        raise UserError(
            f"two sets have the same name ({', '.join(name for name, _ in sets)}): use --train_set, --valid_set"
        )
    return dict(sets)


def write_sets(sets: dict[str, list[str]], root: Path, known: dict[str, Part], data_dir: Path) -> None:
    """Read every part once and write the sets.

    raises UserError: audio and transcripts do not match
    """
    genders = read_genders(root)
    utterances: dict[str, list[Utterance]] = {}
    for name in dict.fromkeys(part for parts in sets.values() for part in parts):
        utterances[name] = read_part(root / name)
        expected = known[name].utterances if name in known else None
        if expected is not None and len(utterances[name]) != expected:
            found = f"{root / name}: {len(utterances[name])} utterances, the release has {expected}"
            print(f"warning: {found}: results do not compare with published ones", file=sys.stderr, flush=True)
    for name, parts in sets.items():
        chosen = [utterance for part in parts for utterance in utterances[part]]
        write_set(data_dir / name, chosen, genders)
        print(f"{data_dir / name}: {len(chosen)} utterances", flush=True)


if __name__ == "__main__":
    main()
