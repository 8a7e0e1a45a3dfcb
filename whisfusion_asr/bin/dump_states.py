"""Write the frozen encoder's states of one set: each job writes its part, --merge true joins the parts.

    python -m whisfusion_asr.bin.dump_states --encoder_dir exp/encoder --data_dir data/train \\
        --out dump/states/train --num_jobs 2 --job 1
"""

import time
from pathlib import Path
from typing import Any

import torch

from whisfusion_asr.api import load_encoder
from whisfusion_asr.bin.arguments import boolean, command_parser
from whisfusion_asr.data.audio import AudioTable
from whisfusion_asr.data.kaldi_dir import read_table
from whisfusion_asr.data.states import StatesWriter, merge
from whisfusion_asr.errors import exits_cleanly
from whisfusion_asr.files import sha256
from whisfusion_asr.models.build import ENCODERS
from whisfusion_asr.training.checkpoint import read_config

BATCH_SECONDS = 60.0
SAMPLE_RATE = 16000
MODEL_FILE = "valid.loss.ave.pth"  # what stage 1 leaves of an encoder that was trained here


def batches(keys: list[str], samples: dict[str, int]) -> list[list[str]]:
    """Keys of similar length together, at most BATCH_SECONDS of padded audio in a batch."""
    groups: list[list[str]] = []
    for key in sorted(keys, key=lambda k: -samples[k]):
        longest = samples[groups[-1][0]] if groups else 0
        if groups and longest * (len(groups[-1]) + 1) <= BATCH_SECONDS * SAMPLE_RATE:
            groups[-1].append(key)
        else:
            groups.append([key])
    return groups


def describe(encoder_dir: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What made the states, for their meta.json: the encoder, its settings, and checksums of its weights."""
    weights = config.get("weights") or {MODEL_FILE: sha256(encoder_dir / MODEL_FILE)}
    return {"encoder": config["encoder"], "encoder_conf": config.get("encoder_conf") or {}, "weights": weights}


@torch.no_grad()
def dump_job(args: Any, keys: list[str], samples: dict[str, int]) -> None:
    """Encode the keys of one job and write their states, true length only."""
    config = read_config(args.encoder_dir)
    if config.get("encoder") not in ENCODERS:
        import whisfusion_asr.tasks.choices  # noqa: F401  (registers ESPnet's encoders; costs 10 s)
    encoder, audio = load_encoder(args.encoder_dir, args.device, MODEL_FILE), AudioTable(args.data_dir)
    meta = describe(Path(args.encoder_dir), config)
    start = last = time.monotonic()
    done = 0
    with StatesWriter(args.out, args.job, meta=meta) as writer:
        for group in batches(keys, samples):
            waves = [torch.from_numpy(audio[key]) for key in group]
            speech = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True).to(args.device)
            lengths = torch.tensor([len(wave) for wave in waves], device=args.device)
            states, frames = encoder.encode(speech, lengths)
            for key, state, length in zip(group, states.cpu(), frames.tolist(), strict=True):
                writer.write(key, state[:length].numpy())
            done += len(group)
            if (now := time.monotonic()) - last > 5:
                last = now
                left = (now - start) / done * (len(keys) - done)
                print(f"{done} of {len(keys)} utterances, {left:.0f} s left", flush=True)


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Dump one job's utterances, or merge all jobs."""
    parser = command_parser(__doc__)
    parser.add_argument("--encoder_dir", help="encoder experiment, or what import_encoder wrote")
    parser.add_argument("--data_dir", required=True, help="Kaldi directory of the set")
    parser.add_argument("--out", required=True, help="directory of the states")
    parser.add_argument("--num_jobs", type=int, default=1)
    parser.add_argument("--job", type=int, default=1, help="1 to num_jobs")
    parser.add_argument("--merge", type=boolean, default=False, help="join the parts instead of encoding")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    args = parser.parse_args(argv)
    samples = {key: int(n) for key, n in read_table(Path(args.data_dir) / "utt2num_samples").items()}
    keys = sorted(samples)
    if args.merge:
        merge(args.out, args.num_jobs, keys)
    else:
        dump_job(args, keys[args.job - 1 :: args.num_jobs], samples)


if __name__ == "__main__":
    main()
