"""Check another system's hypotheses against the audio, and predict their doubtful words again.

    whisfusion refine --hyp other/text --exp_dir exp/mini_synth --config conf/decode_pdd.yaml --data_dir data/dev \\
        --states_dir dump/states/dev --out exp/mini_synth/refined/dev --ref data/dev/text

OUT becomes a decode directory. With --ref, OUT/changes.json counts the reference words that were fixed, broken and left
as they were, and compares the texts before (A) and after (B): error rates with intervals, p-values.
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from whisfusion_asr import __version__
from whisfusion_asr.api import Speech2Text
from whisfusion_asr.bin.arguments import add_draft_options, add_encoder_option, boolean, command_parser
from whisfusion_asr.bin.decode import read_settings, utterances
from whisfusion_asr.data.kaldi_dir import read_table
from whisfusion_asr.decoding.output import merge_parts, write_part
from whisfusion_asr.errors import UserError, exits_cleanly
from whisfusion_asr.files import atomic_write
from whisfusion_asr.refinement import Refiner
from whisfusion_asr.scoring.changes import word_changes
from whisfusion_asr.scoring.compare import compare_systems, comparison_lines, scored_texts
from whisfusion_asr.scoring.score import read_texts


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = command_parser(__doc__)
    parser.add_argument("--hyp", required=True, help="hypotheses: a line `utterance words` for each of the set")
    parser.add_argument("--exp_dir", required=True, help="experiment with config.yaml and weights")
    parser.add_argument("--model_file", default="valid.loss.ave.pth", help="weights inside exp_dir")
    add_encoder_option(parser)
    add_draft_options(parser)
    parser.add_argument("--config", required=True, help="decoding YAML: how hidden words are filled")
    parser.add_argument("--inference_args", default="", help="overrides, e.g. 'sampler_conf.candidates=5'")
    parser.add_argument("--data_dir", required=True, help="Kaldi directory of the set")
    parser.add_argument("--states_dir", help="its dumped states; without it the audio is encoded on the fly")
    parser.add_argument("--lang", help="language to write, for a model of several; default: utt2lang of the set")
    parser.add_argument("--out", required=True, type=Path, help="decode directory")
    parser.add_argument("--ref", help="references in the same form: count what was fixed and broken")
    parser.add_argument("--doubt", type=float, default=0.5, help="words less probable than this are predicted again")
    parser.add_argument("--spare", type=boolean, default=False, help="try one more token in their place, too")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    args = parser.parse_args(argv)
    settings, control = read_settings(args.config, args.inference_args.split())
    if control is not None:
        raise UserError(f"{args.config}: control: {control} decodes from other audio; refine has no use for it")
    keys = sorted(read_table(Path(args.data_dir) / "utt2spk"))
    hypotheses = _texts(args.hyp, keys, args.data_dir)
    references = _texts(args.ref, keys, args.data_dir) if args.ref else None
    others = {"encoder_dir": args.encoder_dir, "draft_dir": args.draft_dir, "draft_model": args.draft_model}
    speech2text = Speech2Text(args.exp_dir, args.model_file, settings, device=args.device, lang=args.lang, **others)
    refiner = Refiner(speech2text, args.doubt, args.spare)
    heard = utterances(speech2text, {key: key for key in keys}, args)
    write_part(args.out, 1, refiner((each, hypotheses[each.utt_id]) for each in heard))
    place = {name: getattr(args, name) for name in ("hyp", "exp_dir", "model_file", "doubt", "spare", "device")}
    versions = {"threads": torch.get_num_threads(), "version": __version__, "torch": torch.__version__}
    totals = merge_parts(args.out, 1, keys, settings.as_conf() | place | versions)
    print(f"{args.out}: {totals['utterances']} utterances, RTF {totals['rtf']}, flags {totals['flags']}")
    if references is not None:
        _report(args.out, references, hypotheses, read_table(Path(args.data_dir) / "utt2spk"))


def _texts(path: str, keys: list[str], data_dir: str) -> dict[str, str]:
    """Texts of exactly these utterances."""
    texts = read_texts(Path(path))
    missing, extra = sorted(set(keys) - set(texts)), sorted(set(texts) - set(keys))
    if missing or extra:
        raise UserError(f"{path}: {len(missing)} utterances of {data_dir} are missing {missing[:5]}, {len(extra)} are "
                        f"too many {extra[:5]}; give a line for each utterance of the set")
    return texts


def _report(out: Path, references: dict[str, str], hypotheses: dict[str, str], speakers: dict[str, str]) -> None:
    refined = read_texts(out / "text")
    compared = compare_systems(*(scored_texts(name, references, texts, speakers)
                                 for name, texts in (("before", hypotheses), ("after", refined))))
    found = word_changes((references[key].split(), hypotheses[key].split(), refined[key].split()) for key in references)
    with atomic_write(out / "changes.json") as file:
        file.write(json.dumps(asdict(found) | {"comparison": compared.as_json()}, indent=2) + "\n")
    print(f"{out}: words fixed {found.fixed}, broken {found.broken}, unchanged {found.unchanged}; "
          f"word errors {found.errors_before} before, {found.errors_after} after")
    print("\n".join(comparison_lines(compared, "wer")))


if __name__ == "__main__":
    main()
