"""Write what the decoded sets of an experiment tell, beyond their error rates: tables, figures and one HTML page.

    whisfusion report --exp_dir exp/mini_synth --data_dir data/test --out exp/mini_synth/report

Reads EXP/<inference_tag>/<name of data_dir>/candidates.jsonl, meta.json and the score directories beside them. Writes
OUT/report.md, OUT/report.json, OUT/*.png and OUT/index.html, which opens offline: sorting, filters, aligned errors,
candidates with the confidence of every token, audio players.
"""

import io
import shlex
import sys

import soundfile

from whisfusion_asr.bin.arguments import boolean, command_parser
from whisfusion_asr.data.audio import SAMPLE_RATE, AudioTable
from whisfusion_asr.data.tokenizer import make_tokenizer
from whisfusion_asr.errors import exits_cleanly
from whisfusion_asr.report.decoded import Vocabulary
from whisfusion_asr.report.files import read_config
from whisfusion_asr.report.write import AUDIO, Encoded, ReportOptions, write_report
from whisfusion_asr.scoring.error_rate import percent_text


def read_vocabulary(exp_dir: str) -> Vocabulary | None:
    """The tokens of an experiment, from its config.yaml; None when that names none."""
    config = read_config(f"{exp_dir}/config.yaml")
    if not config.get("token_list"):
        return None
    tokenizer = make_tokenizer(config["token_list"], config.get("bpemodel"), f"{exp_dir}/config.yaml")
    from whisfusion_asr.api import canvas_spec  # late: torch takes seconds, and a report without tokens needs none

    spec = canvas_spec(config, tokenizer)
    return Vocabulary(tokenizer.pieces, tokenizer.decode, spec.eos_id, spec.prefix)


def flac_encoder() -> Encoded:
    """(data_dir, utterance) -> its audio as FLAC, 16 kHz."""
    tables: dict[str, AudioTable] = {}

    def encoded(data_dir: str, utt_id: str) -> bytes:
        table = tables.setdefault(data_dir, AudioTable(data_dir))
        buffer = io.BytesIO()
        soundfile.write(buffer, table[utt_id], SAMPLE_RATE, format="FLAC")
        return buffer.getvalue()

    return encoded


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    defaults = ReportOptions()
    parser = command_parser(__doc__)
    parser.add_argument("--exp_dir", required=True, help="experiment with decoded sets")
    parser.add_argument("--data_dir", required=True, nargs="+", help="Kaldi directories of the sets")
    parser.add_argument("--out", required=True, help="directory that receives the report")
    parser.add_argument("--buckets", type=float, nargs="+", default=list(defaults.buckets),
                        help="upper ends of the duration buckets in seconds (10 20 30)")
    parser.add_argument("--figures", type=boolean, default=True, help="draw figures; needs matplotlib")
    parser.add_argument("--audio", choices=AUDIO, default=defaults.audio, help="embed audio, link to it, or none")
    parser.add_argument("--num_audio", type=int, default=defaults.num_audio, help="utterances with embedded audio")
    parser.add_argument("--max_audio_mb", type=float, default=defaults.max_audio_mb, help="size of embedded audio")
    parser.add_argument("--utterances", nargs="+", default=[], help="drawn one by one, always listed and embedded")
    parser.add_argument("--max_listed", type=int, default=defaults.max_listed, help="utterances of a set on the page")
    parser.add_argument("--decodings", nargs="+", default=[], help="names (decode_pdd ...) of some; default: all")
    args = parser.parse_args(argv)
    options = ReportOptions(args.buckets, args.figures, args.audio, args.num_audio, args.max_audio_mb,
                            args.utterances, args.max_listed, args.decodings)
    command = shlex.join(["whisfusion", "report", *(sys.argv[1:] if argv is None else argv)])
    analyses = write_report(args.exp_dir, args.data_dir, args.out, options, read_vocabulary(args.exp_dir),
                            flac_encoder(), command)
    for each in analyses:
        oracle = percent_text((each["candidates"] or {}).get("oracle_wer"))
        print(f"{each['name']}: WER {percent_text(each['wer'])}, oracle {oracle}, normalizer {each['normalizer']}")
    print(f"wrote {args.out}/index.html and report.md")


if __name__ == "__main__":
    main()
