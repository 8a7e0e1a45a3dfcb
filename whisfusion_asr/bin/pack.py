"""Pack a trained model into one file that needs nothing else: weights, encoder, tokens, decoding settings, model card.

    whisfusion pack exp/mini_synth --out model.tar --encoder_dir exp/train_encoder_en_unigram300 \\
        --inference_config conf/decode_pdd.yaml --license cc-by-4.0

`Speech2Text.from_pretrained("model.tar")` and `whisfusion transcribe FILE --model model.tar` open it on any machine.
With --hub_repo OWNER/NAME it is uploaded too, beside its model card; the hub's own client wants a token for that
(`hf auth login`, or HF_TOKEN).
"""

from pathlib import Path

from whisfusion_asr.bin.arguments import add_draft_options, command_parser
from whisfusion_asr.bin.decode import read_settings
from whisfusion_asr.errors import UserError, exits_cleanly
from whisfusion_asr.packing import CARD, pack_experiment
from whisfusion_asr.pretrained.hub import upload_model
from whisfusion_asr.pretrained.pack import PACKED, read_member
from whisfusion_asr.training.checkpoint import WEIGHTS


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = command_parser(__doc__)
    parser.add_argument("exp_dir", help="experiment with config.yaml, weights and, if it was scored, its scores")
    parser.add_argument("--out", required=True, type=Path, help="tar to write")
    parser.add_argument("--model_file", default=WEIGHTS, help="weights inside exp_dir")
    parser.add_argument("--encoder_dir", help="encoder of the states that the experiment was trained on")
    add_draft_options(parser)
    parser.add_argument("--inference_config", help="decoding YAML to pack; default: none, the model's usual decoding")
    parser.add_argument("--inference_args", default="", help="overrides, e.g. 'sampler_conf.candidates=5'")
    parser.add_argument("--license", default="", help="line of the model card, e.g. cc-by-4.0; default: not stated")
    parser.add_argument("--hub_repo", help="OWNER/NAME on the hub to upload to; default: nothing is uploaded")
    args = parser.parse_args(argv)
    settings, control = None, None
    if args.inference_config:
        settings, control = read_settings(args.inference_config, args.inference_args.split())
    if control:
        raise UserError(f"--inference_config {args.inference_config}: a control experiment (control: {control}); "
                        "give the decoding that users shall get")
    pack_experiment(args.exp_dir, args.out, settings, args.model_file, args.encoder_dir, args.license,
                    args.draft_dir, args.draft_model)
    print(f"wrote {args.out}, {args.out.stat().st_size / 1e6:.1f} MB")
    if args.hub_repo:
        place = upload_model(args.hub_repo, {PACKED: args.out, CARD: read_member(args.out, CARD)})
        print(f"uploaded to {place}")


if __name__ == "__main__":
    main()
