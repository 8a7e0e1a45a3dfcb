"""Stage 0 of the conversion: the recordings of a folder as a train, a valid and a test set.

    local/data.sh --audio_dir DIR
    local/data.sh --audio_dir DIR --transcripts FILE --test_share 0.2

A file is in one set, always the same; longer ones than 30 s are cut at quiet places. What has no transcript gets one by
Whisper afterwards. With transcripts for some of the files, these are the ones that test and validate.
"""

import argparse
import sys
from pathlib import Path

from whisfusion_asr.bin.arguments import command_parser
from whisfusion_asr.data.recordings import write_sets
from whisfusion_asr.errors import UserError, exits_cleanly


def options() -> argparse.ArgumentParser:
    """The options of local/data.sh."""
    parser = command_parser(__doc__)
    parser.prog = "local/data.sh"
    parser.add_argument("--audio_dir", "--corpus_dir", type=Path, help="folder, searched with its subfolders")
    parser.add_argument("--transcripts", type=Path, help="lines `name text`; name: path, file name or stem")
    parser.add_argument("--valid_share", type=float, default=0.1, help="share of the files that validate (0.1)")
    parser.add_argument("--test_share", type=float, default=0.1, help="share of the files that test (0.1)")
    parser.add_argument(
        "--speaker_from", default="utterance",
        help="utterance (unknown), folder, or a regular expression whose first group is the speaker in the path",
    )  # fmt: skip
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="where the sets are written ($DATADIR)")
    return parser


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Write the sets."""
    args = options().parse_args(argv)
    if args.audio_dir is None:
        raise UserError("--audio_dir is not set; give the folder with the recordings")
    if min(args.valid_share, args.test_share) < 0 or args.valid_share + args.test_share >= 1:
        raise UserError(f"--valid_share {args.valid_share:g}, --test_share {args.test_share:g}: expected 0 or more, "
                        "together less than 1")  # fmt: skip
    shares = {"train": 1.0, "valid": args.valid_share, "test": args.test_share}
    for line in write_sets(args.audio_dir, args.transcripts, args.data_dir, shares, args.speaker_from):
        print(f"warning: {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
