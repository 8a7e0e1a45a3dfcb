"""The report of an experiment on disk: report.md, report.json, PNG figures and index.html."""

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write
from whisfusion_asr.report.analysis import EDGES, analyse
from whisfusion_asr.report.decoded import DecodedSet, Utterance, Vocabulary, read_decoded
from whisfusion_asr.report.figures import draw_set, draw_utterance
from whisfusion_asr.report.page import PageSet, data_uri, html_page
from whisfusion_asr.report.tables import markdown
from whisfusion_asr.scoring.score import read_texts

AUDIO = ("embed", "link", "none")
Encoded = Callable[[str, str], bytes]


@dataclass(frozen=True)
class ReportOptions:
    """buckets: upper ends of the duration buckets in seconds; figures: draw them (needs matplotlib).

    audio: "embed" the players' audio into the page, "link" to the files of wav.scp, or "none"
    num_audio, max_audio_mb: how many utterances are embedded at most, those with most errors first, and how many
        million bytes of the page they may take
    utterances: drawn one by one, listed and embedded whatever their errors; none = the two with most errors of a set
    max_listed: utterances of a set on the page, those with most errors first
    """

    buckets: Sequence[float] = EDGES
    figures: bool = True
    audio: str = "embed"
    num_audio: int = 20
    max_audio_mb: float = 20.0
    utterances: Sequence[str] = ()
    max_listed: int = 1000
    decodings: Sequence[str] = ()


def write_report(
    exp_dir: str | Path, data_dirs: Sequence[str], out: str | Path, options: ReportOptions,
    vocabulary: Vocabulary | None = None, encoded: Encoded | None = None, command: str = "",
) -> list[dict[str, Any]]:
    """Analyse EXP/<inference_tag>/<name of a data_dir> and write the report; returns the analyses.

    encoded: (data_dir, utterance) -> FLAC, for audio "embed"
    raises UserError: as `read_decoded`; nothing decoded of these sets; an utterance that no set holds
    """
    exp_dir, out = Path(exp_dir), Path(out)
    found = [(read_decoded(path, data_dir, f"{path.parent.name}/{path.name}"), data_dir)
             for path, data_dir in find_decoded(exp_dir, data_dirs, options.decodings)]
    decoded = [each for each, _ in found]
    _check_utterances(options.utterances, decoded, exp_dir)
    analyses = [analyse(each, vocabulary, options.buckets) for each in decoded]
    drawn = [_draw(each, analysis, vocabulary, options) for each, analysis in zip(decoded, analyses, strict=True)]
    audio = _audio(found, out, options, encoded)
    names = {each.name: [(file, caption) for file, _, caption in files]
             for each, files in zip(decoded, drawn, strict=True)}
    for file, png, _ in (each for files in drawn for each in files):
        _write(out / file, png)
    title = f"Report of {exp_dir}"
    _write(out / "report.json", json.dumps({"exp_dir": str(exp_dir), "command": command, "sets": analyses}, indent=1))
    _write(out / "report.md", markdown(title, analyses, names, command))
    sets = [PageSet(each, analysis, [(png, caption) for _, png, caption in files], listed(each, options))
            for each, analysis, files in zip(decoded, analyses, drawn, strict=True)]
    _write(out / "index.html", html_page(title, sets, audio, vocabulary, command))
    return analyses


def find_decoded(
    exp_dir: Path, data_dirs: Sequence[str], decodings: Sequence[str] = ()
) -> list[tuple[Path, str]]:
    """Decode directories of an experiment with the data directory of each, in the order of data_dirs.

    decodings: names of some, in their order; empty: all by name
    raises UserError: none of them is there, or not all that are named
    """
    found = [(path.parent, data_dir) for data_dir in data_dirs for each in decodings or ["*"]
             for path in sorted(exp_dir.glob(f"{each}/{Path(data_dir).name}/candidates.jsonl"))]
    if missing := set(decodings) - {path.parent.name for path, _ in found}:
        raise UserError(f"{exp_dir}: nothing is decoded in {', '.join(sorted(missing))} of these sets; see --decodings")
    if not found:
        names = ", ".join(Path(each).name for each in data_dirs)
        raise UserError(f"{exp_dir}: no <inference_tag>/<set>/candidates.jsonl for the set {names}; decode first "
                        "(run.sh --stage decode)")
    return found


def worst_first(utterances: Sequence[Utterance]) -> list[Utterance]:
    """By errors, most first; equal ones in their order."""
    return sorted(utterances, key=lambda each: -each.counts.errors)


def listed(decoded: DecodedSet, options: ReportOptions) -> list[Utterance]:
    """The utterances of a set on the page."""
    named = [each for each in decoded.utterances if each.utt_id in options.utterances]
    others = [each for each in worst_first(decoded.utterances) if each.utt_id not in options.utterances]
    return [*named, *others][: max(options.max_listed, len(named))]


def _check_utterances(wanted: Sequence[str], decoded: Sequence[DecodedSet], exp_dir: Path) -> None:
    known = {utterance.utt_id for each in decoded for utterance in each.utterances}
    if missing := [key for key in wanted if key not in known]:
        raise UserError(f"utterances: {missing[0]} is in none of the decoded sets of {exp_dir}")


def _draw(
    decoded: DecodedSet, analysis: dict[str, Any], vocabulary: Vocabulary | None, options: ReportOptions
) -> list[tuple[str, bytes, str]]:
    """(file name, PNG, caption) of a set's figures."""
    if not options.figures:
        return []
    prefix = decoded.name.replace("/", "_")
    drawn = [(f"{prefix}_{name}.png", *content) for name, content in draw_set(analysis, decoded.utterances).items()]
    with_candidates = [each for each in decoded.utterances if each.candidates]
    chosen = ([each for each in with_candidates if each.utt_id in options.utterances] if options.utterances
              else worst_first(with_candidates)[:2])
    for each in chosen:
        name = re.sub(r"[^\w.-]", "_", each.utt_id)
        drawn.append((f"{prefix}_{name}.png", draw_utterance(each, vocabulary), f"Tokens of {each.utt_id}"))
    return drawn


def _audio(
    found: Sequence[tuple[DecodedSet, str]], out: Path, options: ReportOptions, encoded: Encoded | None
) -> dict[str, str]:
    """Source of the player of each utterance that gets one."""
    if options.audio not in AUDIO:
        raise UserError(f"audio: {options.audio!r} is unknown; expected {', '.join(AUDIO)}")
    if options.audio == "none":
        return {}
    places = {utterance.utt_id: data_dir for decoded, data_dir in found for utterance in decoded.utterances}
    if options.audio == "link":
        return linked_audio(set(places.values()), out)
    worst = worst_first([utterance for decoded, _ in found for utterance in decoded.utterances])
    order = dict.fromkeys([*options.utterances, *(each.utt_id for each in worst)])
    sources: dict[str, str] = {}
    left = options.max_audio_mb * 1e6
    for key in list(order)[: max(options.num_audio, len(options.utterances))] if encoded else []:
        uri = data_uri(encoded(places[key], key), "audio/flac")
        if len(uri) <= left:
            sources[key] = uri
            left -= len(uri)
    return sources


def linked_audio(data_dirs: set[str], out: Path) -> dict[str, str]:
    """Paths from the page to the audio files of wav.scp; pipes and segments have none."""
    sources = {}
    for data_dir in sorted(data_dirs):
        if not (Path(data_dir) / "segments").is_file():
            for key, source in read_texts(Path(data_dir) / "wav.scp").items():
                if not source.endswith("|"):
                    sources[key] = Path(os.path.relpath(source, out)).as_posix()
    return sources


def _write(path: Path, content: str | bytes) -> None:
    with atomic_write(path, "wb" if isinstance(content, bytes) else "w") as file:
        file.write(content)
