"""A sweep: one model and one set's states, loaded once, decoded and scored with each point of a grid."""

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from whisfusion_asr import __version__
from whisfusion_asr.api import SAMPLE_RATE, Speech2Text, Utterance
from whisfusion_asr.data.kaldi_dir import read_table
from whisfusion_asr.data.languages import read_languages
from whisfusion_asr.data.states import StatesTable
from whisfusion_asr.decoding.output import Transcript, merge_parts, part_dir, write_part
from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write, sha256
from whisfusion_asr.recipe.lock import locked
from whisfusion_asr.report.decoded import read_decoded
from whisfusion_asr.report.files import read_json
from whisfusion_asr.report.oracle import selection_quality
from whisfusion_asr.scoring import score_files
from whisfusion_asr.studies.grid import Point

# Decoded before each point and not measured: the first calls of a shape are slow.
WARM_UP = 8


@dataclass(frozen=True)
class SweepInputs:
    """What all points of a sweep share. repeats: each point is decoded so often; the run of median seconds counts.

    draft_dir, draft_model: of the sampler gaps, see Speech2Text
    """

    exp_dir: str
    model_file: str
    data_dir: str
    states_dir: str
    device: str = "cpu"
    normalizer: str = "none"
    repeats: int = 1
    draft_dir: str | None = None
    draft_model: str = "valid.loss.ave.pth"

    def identity(self) -> dict[str, str]:
        """What the results depend on besides a point's settings: name -> hash or value.

        Weights that the model was started from are known by the hashes in init.json, states by their meta.json, index
        and shapes. Raises UserError: a file is missing.
        """
        exp, data, states = Path(self.exp_dir), Path(self.data_dir), Path(self.states_dir)
        files = {"the model": [exp / "config.yaml", exp / "init.json", exp / self.model_file],
                 "the data": [data / "text", data / "utt2spk", data / "utt2num_samples"],
                 "the states": [states / "meta.json", states / "shape", states / "states.scp"]}
        if self.draft_dir is not None:
            draft = Path(self.draft_dir)
            files["the drafter"] = [draft / "config.yaml", draft / "init.json", draft / self.draft_model]
        hashes = {name: _hash_of(paths) for name, paths in files.items()}
        conditions = {"the normalizer": self.normalizer, "the device": self.device, "the code version": __version__,
                      "the number of threads": torch.get_num_threads(), "the number of repeats": self.repeats}
        return hashes | {name: str(value) for name, value in conditions.items()}


def _hash_of(paths: Sequence[Path]) -> str:
    """One hash of some files; only init.json may be missing."""
    digest = hashlib.sha256()
    for path in paths:
        if path.is_file():
            digest.update(sha256(path).encode())
        elif path.name != "init.json":
            raise UserError(f"{path}: no such file; a sweep needs a trained model, a data directory and its states")
    return digest.hexdigest()[:32]


def check_same(out: Path, identity: dict[str, str]) -> None:
    """Note in OUT/inputs.json what the results are made with.

    raises UserError: the results that stand there were made with something else
    """
    path = out / "inputs.json"
    if path.is_file():
        old = read_json(path)
        if changed := [name for name in identity if old.get(name) != identity[name]]:
            raise UserError(f"{out}: its results were made before a change of {', '.join(changed)}; "
                            "give a new --out, or delete this one")
        return
    with atomic_write(path) as file:
        json.dump(identity, file, indent=2)
        file.write("\n")


def point_dir(out: Path, point: Point) -> Path:
    """Where a point is decoded and scored: a decode directory with a result.json, written last."""
    return out / "points" / point.key


def run_sweep(inputs: SweepInputs, points: Sequence[Point], out: str | Path) -> list[dict[str, Any]]:
    """Decode and score the points whose results are not there yet; returns a row for each point.

    A row holds name, place (its directory), settings, wer, interval_by_utterance, interval_by_speaker, oracle_wer (None
    without candidates), errors, reference_length, passes and rows (means of an utterance), decode_seconds and
    cpu_seconds (of the whole set; the process's, on the CPU only), rtf, flags.
    raises UserError: as `check_same`; another sweep is at work in OUT; utterances without states or reference words
    """
    out = Path(out)
    with locked(out, "a sweep"):
        check_same(out, inputs.identity())
        _measure_missing(inputs, [point for point in points if not _result(out, point).is_file()], out)
        return [{"name": point.name, "place": str(point_dir(out, point)), **read_json(_result(out, point))}
                for point in points]


def _result(out: Path, point: Point) -> Path:
    return point_dir(out, point) / "result.json"


def _measure_missing(inputs: SweepInputs, points: Sequence[Point], out: Path) -> None:
    if not points:
        return
    speech2text = Speech2Text(inputs.exp_dir, inputs.model_file, points[0].settings, device=inputs.device,
                              draft_dir=inputs.draft_dir, draft_model=inputs.draft_model)
    ready = [(point, speech2text.with_settings(point.settings)) for point in points]  # refuses before any work
    utterances = load_utterances(speech2text, inputs)
    for number, (point, model) in enumerate(ready, 1):
        _measure(point, model, utterances, inputs, point_dir(out, point))
        row = read_json(_result(out, point))
        print(f"{number} of {len(points)}: {point.name}: WER {row['wer']:.2f}, {row['rows']:g} rows an utterance, "
              f"{row['decode_seconds']:.1f} s", flush=True)


def load_utterances(speech2text: Speech2Text, inputs: SweepInputs) -> list[Utterance]:
    """All utterances of the set with their states, longest first. Raises UserError for one without states."""
    table = StatesTable(inputs.states_dir)
    samples = {key: int(n) for key, n in read_table(Path(inputs.data_dir) / "utt2num_samples").items()}
    keys = sorted(read_table(Path(inputs.data_dir) / "utt2spk"), key=lambda key: (-samples[key], key))
    if missing := [key for key in keys if key not in table]:
        raise UserError(f"{inputs.states_dir}: no states for {len(missing)} utterances, {missing[0]} first; "
                        "dump the set again")
    languages = read_languages(inputs.data_dir) if speech2text.tokenizer.languages else {}
    ready = [speech2text.utterance(key, table[key], samples[key] / SAMPLE_RATE) for key in keys]
    return [replace(utterance, language=languages.get(utterance.utt_id)) for utterance in ready]


def _measure(point: Point, model: Speech2Text, utterances: Sequence[Utterance], inputs: SweepInputs,
             place: Path) -> None:
    """Decode, score and file one point."""
    for _ in model.decode_many(utterances[:WARM_UP]):
        pass
    runs = sorted((_run(model, utterances) for _ in range(inputs.repeats)), key=lambda run: run[0])
    _, cpu, transcripts = runs[(inputs.repeats - 1) // 2]
    write_part(place, 1, transcripts)
    totals = merge_parts(place, 1, [each.utt_id for each in utterances], point.settings.as_conf() | asdict(inputs))
    shutil.rmtree(part_dir(place, 1).parent)
    data = Path(inputs.data_dir)
    wer = score_files(data / "text", place / "text", data / "utt2spk", place, None, inputs.normalizer)["wer"].as_json()
    if wer["corpus_percent"] is None:
        raise UserError(f"{data}/text: no reference words; a sweep needs a set with transcripts")
    decoded = read_decoded(place, data)
    known = all(each.candidates for each in decoded.utterances)
    kept = ("interval_by_utterance", "interval_by_speaker", "errors", "reference_length")
    result = {
        "settings": point.settings.as_conf(), "wer": wer["corpus_percent"], **{key: wer[key] for key in kept},
        "oracle_wer": selection_quality(decoded.utterances)["oracle_wer"] if known else None, **totals,
        "cpu_seconds": round(cpu, 3) if torch.device(inputs.device).type == "cpu" else None,
    }
    with atomic_write(place / "result.json") as file:
        json.dump(result, file, indent=2)
        file.write("\n")


def _run(model: Speech2Text, utterances: Sequence[Utterance]) -> tuple[float, float, list[Transcript]]:
    """Seconds by the clock, seconds of the processor, transcripts."""
    start = time.process_time()
    transcripts = list(model.decode_many(utterances))
    cpu = time.process_time() - start
    return sum(sum(each.timing.values()) for each in transcripts), cpu, transcripts
