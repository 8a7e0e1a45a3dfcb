"""Write the frozen encoder's states of one set.

    whisfusion dump_states --encoder_dir exp/encoder --data_dir data/train --out dump/states/train

In several processes at once: each with `--num_jobs N --job J` writes its part, one with `--merge true` then joins them.
What was interrupted goes on where it was when the same command is given again.
"""

from pathlib import Path
from typing import Any

import torch

from whisfusion_asr.api import load_encoder
from whisfusion_asr.bin.arguments import add_job_options, command_parser, jobs_to_do
from whisfusion_asr.data.audio import AudioTable
from whisfusion_asr.data.dump import BATCH_SECONDS, SAMPLE_RATE, check_room, dump, forecast, group_by_length
from whisfusion_asr.data.kaldi_dir import read_table
from whisfusion_asr.data.states import StatesWriter, merge
from whisfusion_asr.data.storage import STORAGES
from whisfusion_asr.errors import exits_cleanly
from whisfusion_asr.files import sha256
from whisfusion_asr.models.whisfusion import Whisfusion
from whisfusion_asr.models.whisper_encoder import WhisperEncoder
from whisfusion_asr.training.checkpoint import read_config

MODEL_FILE = "valid.loss.ave.pth"  # what stage 1 leaves of an encoder that was trained here


def describe(encoder_dir: Path, config: dict[str, Any], network: Whisfusion) -> dict[str, Any]:
    """What made the states, for their meta.json: the encoder, its settings, and checksums of its weights."""
    weights = config.get("weights") or {MODEL_FILE: sha256(encoder_dir / MODEL_FILE)}
    meta = {"encoder": config["encoder"], "encoder_conf": config.get("encoder_conf") or {}, "weights": weights}
    return meta | {"frame_shift": frame_shift(network)}


@torch.no_grad()
def frame_shift(network: Whisfusion) -> float:
    """Seconds from one state to the next; of an encoder that does not tell, measured on silence."""
    if isinstance(network.encoder, WhisperEncoder):
        return network.encoder.frame_shift
    device = next(network.parameters()).device
    counts = []
    for seconds in (4, 12):
        length = torch.tensor([seconds * SAMPLE_RATE], device=device)
        counts.append(int(network.encode(torch.zeros(1, int(length), device=device), length)[1]))
    return 8 / (counts[1] - counts[0])


def dump_job(args: Any, job: int, samples: dict[str, int]) -> None:
    """Encode the utterances of one job and write their states, true length only."""
    config = read_config(args.encoder_dir)
    network, audio = load_encoder(args.encoder_dir, args.device, MODEL_FILE), AudioTable(args.data_dir)
    own = {key: samples[key] for key in sorted(samples)[job - 1 :: args.num_jobs]}
    limit = BATCH_SECONDS[torch.device(args.device).type] * SAMPLE_RATE
    if isinstance(network.encoder, WhisperEncoder):
        network.encoder.check_durations(list(samples.values()), list(samples))
        groups = group_by_length(own, limit, network.encoder.window)
    else:
        groups = group_by_length(own, limit)
    meta = describe(Path(args.encoder_dir), config, network)
    expected = forecast(network.encode, audio, samples, args.device)
    room = check_room(Path(args.out), expected.total_bytes(samples.values(), args.storage), args.storage)
    print(f"{args.data_dir}: {sum(samples.values()) / SAMPLE_RATE / 3600:.2f} h of audio, {room}")
    with StatesWriter(args.out, job, args.storage, meta, groups) as writer:
        left = [own[key] for group in writer.remaining for key in group]
        minutes = expected.total_seconds(left) / 60
        print(f"job {job}: {len(left)} of {len(own)} utterances to do, about {minutes:.1f} min", flush=True)
        dump(network.encode, audio, writer, len(own), args.device)


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Dump one job's utterances, all, or none, and merge the jobs."""
    parser = command_parser(__doc__)
    parser.add_argument("--encoder_dir", help="encoder experiment, or what import_encoder wrote")
    parser.add_argument("--data_dir", required=True, help="Kaldi directory of the set")
    parser.add_argument("--out", required=True, help="directory of the states")
    parser.add_argument("--storage", default="int8", choices=STORAGES, help="bytes of a value: 4, 2 or 1")
    add_job_options(parser)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    args = parser.parse_args(argv)
    samples = {key: int(n) for key, n in read_table(Path(args.data_dir) / "utt2num_samples").items()}
    jobs, joined = jobs_to_do(args)
    for job in jobs:
        dump_job(args, job, samples)
    if joined:
        merge(args.out, args.num_jobs, samples)


if __name__ == "__main__":
    main()
