"""Find below which confidence a model hears no speech, from a set with speech, and write it into the experiment.

    whisfusion calibrate --exp_dir exp/mini_synth --data_dir data/dev --states_dir dump/states/dev

Decoding then leaves silence and noise empty, unless engine_conf.silence says otherwise. Nothing is done where the file
is of these weights and this set already.
"""

import json
from pathlib import Path

from whisfusion_asr.api import Speech2Text
from whisfusion_asr.api.silence import FILE, calibrate
from whisfusion_asr.bin.arguments import add_draft_options, command_parser
from whisfusion_asr.bin.decode import utterances
from whisfusion_asr.data.tables import read_table
from whisfusion_asr.errors import exits_cleanly
from whisfusion_asr.files import atomic_write, sha256
from whisfusion_asr.training.checkpoint import read_config

MOST = 200  # utterances that are listened to, spread over the set


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = command_parser(__doc__)
    parser.add_argument("--exp_dir", type=Path, required=True, help="experiment of a training stage")
    parser.add_argument("--model_file", default="valid.loss.ave.pth", help="weights inside exp_dir")
    parser.add_argument("--data_dir", type=Path, required=True, help="Kaldi directory of a set with speech")
    parser.add_argument("--states_dir", type=Path, help="its dumped states; without it the audio is encoded")
    add_draft_options(parser)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    args = parser.parse_args(argv)
    out, missing = args.exp_dir / FILE, _missing(args.data_dir, args.states_dir)
    if missing:
        print(f"{out}: not written, {missing} is not there; noise may then be taken for speech")
        return
    heard_by = args.exp_dir / args.model_file if args.draft_dir is None else Path(args.draft_dir, args.draft_model)
    made_of = {"set": str(args.data_dir), "weights": sha256(heard_by)}
    if out.is_file() and made_of.items() <= json.loads(out.read_text(encoding="utf-8")).items():
        return
    config = read_config(args.exp_dir)
    if config.get("ctc") is None and config.get("decoder") == "causal":
        print(f"{out}: not written, a causal decoder without CTC head has no first pass over the whole text")
        return
    conf = {"sampler": "ctc_greedy"} if config.get("ctc") else {"sampler": "single", "engine_conf": {"silence": 0.0}}
    model = Speech2Text(args.exp_dir, args.model_file, conf, device=args.device, draft_dir=args.draft_dir,
                        draft_model=args.draft_model)
    keys = sorted(read_table(args.data_dir / "utt2spk"))
    chosen = keys[:: -(-len(keys) // MOST)]
    found = calibrate(model, utterances(model, {key: key for key in chosen}, args))
    with atomic_write(out) as file:
        json.dump(found | made_of, file, indent=2)
        file.write("\n")
    print(f"{out}: no speech below {found['bound']} ({found['utterances']} utterances of {args.data_dir})")


def _missing(data_dir: Path, states_dir: Path | None) -> Path | None:
    """The first input that is not there: a recipe may decode with a model whose validation set was never prepared."""
    needed = [data_dir / "utt2num_samples", *([] if states_dir is None else [states_dir / "states.scp"])]
    return next((path for path in needed if not path.is_file()), None)


if __name__ == "__main__":
    main()
