"""Score a hypothesis file: score_{wer,cer,ter}/{ref.trn,hyp.trn,result.txt} and summary.json."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from pathlib import Path
from statistics import fmean

import jiwer

from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write
from whisfusion_asr.scoring.align import CHUNK, align_texts
from whisfusion_asr.scoring.bootstrap import Interval, rate_interval
from whisfusion_asr.scoring.error_rate import ErrorCounts, count_marks, percent_text
from whisfusion_asr.scoring.normalize import described, get_normalizer
from whisfusion_asr.scoring.result_txt import AlignedUtterance, result_txt
from whisfusion_asr.scoring.trn import ascii_lower, drawn_speakers, escape, listed, other_utterances, trn_id

Split = Callable[[str], list[str]]
SCORE_FILES = ("ref.trn", "hyp.trn", "result.txt")


@dataclass(frozen=True)
class Scored:
    """One measure of one set."""

    by_utterance: list[ErrorCounts]
    intervals: list[Interval]
    """Of the corpus rate: by utterance, and by speaker where speakers are known."""
    jiwer_errors: int | None = None
    """Errors by edit distance, which jiwer counts; below ours where sclite's costs trade substitutions for matches."""

    @property
    def counts(self) -> ErrorCounts:
        """The counts of the set."""
        return reduce(add, self.by_utterance)

    @property
    def rates(self) -> list[float]:
        """The rates in percent of the utterances that have reference tokens."""
        return [each.percent for each in self.by_utterance if each.percent is not None]

    @property
    def jiwer_percent(self) -> float | None:
        """jiwer's corpus rate; None where it was not asked, or without reference tokens."""
        words = self.counts.reference_length
        return 100 * self.jiwer_errors / words if words and self.jiwer_errors is not None else None

    def as_json(self) -> dict[str, object]:
        """Rates first (the corpus rate, then the mean of the utterances' rates), then the counts behind them."""
        counts, rates = self.counts, self.rates
        return {
            "corpus_percent": counts.percent,
            **{f"interval_by_{each.unit}": each.as_json() for each in self.intervals},
            "mean_over_utterances_percent": fmean(rates) if rates else None,
            "utterances_in_mean": len(rates),
            "reference_length": counts.reference_length,
            "hypothesis_length": counts.hypothesis_length,
            "errors": counts.errors,
            **asdict(counts),
            "wrong_utterance_percent": counts.wrong_utterance_percent,
        }


@dataclass(frozen=True)
class _Aligned:
    """One measure of one set before it is counted: the contents of the trn files, and what result.txt is made of."""

    trns: tuple[str, str]
    utterances: list[AlignedUtterance]


def score_files(
    ref: str | Path,
    hyp: str | Path,
    utt2spk: str | Path | None,
    out_dir: str | Path,
    tokenizer: Split | None = None,
    normalizer: str = "none",
    labelled: int = 0,
) -> dict[str, Scored]:
    """Write the score directories of one decoded set and return the scores by measure: "wer", "cer", "ter".

    Under another normaliser than "none" there is also "raw_wer", that of the texts as they are, without a directory.

    ref, hyp: Kaldi text files (`key words`; a key alone is an empty text), joined by key, written in the order of `ref`
    utt2spk: lines `key speaker`; None makes every utterance its own speaker
    tokenizer: text -> pieces for the token error rate; None leaves it out, and removes what an earlier run left of it
    labelled: references that a recogniser wrote, kept in summary.json: their rates are no error rates
    raises UserError: the files' keys differ; a file is empty, malformed or not UTF-8; an unknown normaliser
    """
    normalize = get_normalizer(normalizer)
    references, hypotheses = read_texts(ref), read_texts(hyp)
    _check_keys(references, hypotheses, ref, hyp)
    ids = _trn_ids(references, utt2spk)
    speakers = drawn_speakers([ascii_lower(each) for each in ids]) if utt2spk else None
    pairs = [(text, hypotheses[key]) for key, text in references.items()]
    clean = [(_one_blank(normalize(old)), _one_blank(normalize(new))) for old, new in pairs]
    splits: dict[str, Split | None] = {"wer": normalize.words, "cer": normalize.characters, "ter": tokenizer}
    scored = {}
    for name, split in splits.items():
        directory = Path(out_dir) / f"score_{name}"
        if split:
            aligned = _align(ids, clean, split)
            _write(directory, aligned)
            scored[name] = _count(aligned, speakers, with_jiwer=name == "wer")
        else:
            _remove(directory)
    if normalizer != "none":
        scored["raw_wer"] = _count(_align(ids, pairs, str.split), speakers)
    with atomic_write(Path(out_dir) / "summary.json") as file:
        json.dump(_summary(scored, normalizer) | ({"labelled": labelled} if labelled else {}), file, indent=2)
        file.write("\n")
    return scored


def _summary(scored: dict[str, Scored], normalizer: str) -> dict[str, object]:
    """The content of summary.json: what a table needs, then all measures in full."""
    wer = scored["wer"].as_json()
    summary = {
        "corpus_wer_percent": wer["corpus_percent"],
        "mean_over_utterances_wer_percent": wer["mean_over_utterances_percent"],
        "utterances": wer["utterances"],
        "reference_words": wer["reference_length"],
        "normalizer": described(normalizer),
        "jiwer_corpus_wer_percent": scored["wer"].jiwer_percent,
        "jiwer_errors": scored["wer"].jiwer_errors,
    }
    raw = scored.get("raw_wer", scored["wer"]).counts
    summary |= {"raw_corpus_wer_percent": raw.percent, "raw_reference_words": raw.reference_length}
    return summary | {name: each.as_json() for name, each in scored.items()}


def console_lines(scored: dict[str, Scored], normalizer: str, out_dir: str | Path) -> list[str]:
    """What `score_files` returned, for a terminal: two lines a measure, corpus rate first, all else labelled."""
    lines = []
    for name, each in scored.items():
        raw = name == "raw_wer"
        counts, rates = each.counts, each.rates
        place = "none (raw texts)" if raw else f"{described(normalizer)}: {out_dir}/score_{name}/result.txt"
        lines.append(
            f"%{'WER' if raw else name.upper()} {percent_text(counts.percent)} "
            f"[ {counts.errors} / {counts.reference_length}, {counts.insertions} ins, {counts.deletions} del, "
            f"{counts.substitutions} sub ] {counts.utterances} utterances, normalizer {place}"
        )
        parts = [str(interval) for interval in each.intervals]
        parts.append(f"mean over utterances {percent_text(fmean(rates) if rates else None)}")
        if each.jiwer_errors is not None:
            more = counts.errors - each.jiwer_errors
            why = f" ({more} errors less: edit distance instead of sclite's costs)" if more else ""
            parts.append(f"jiwer {percent_text(each.jiwer_percent)}{why}")
        lines.append(f"    {'; '.join(parts)}")
    return lines


def read_texts(path: str | Path) -> dict[str, str]:
    """Read lines `key text`; a key alone has the empty text.

    raises UserError: no such file, no lines, an empty line, a repeated key, bytes that are not UTF-8
    """
    texts: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                key, _, text = line.strip().replace("\t", " ", 1).partition(" ")
                if not key:
                    raise UserError(f"{path}:{number}: empty line, expected `key text`; delete the line")
                if key in texts:
                    raise UserError(f"{path}:{number}: key '{key}' occurs twice; remove one of the lines")
                texts[key] = text
    except FileNotFoundError:
        raise UserError(f"{path}: no such file, expected lines `key text`") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert it with iconv") from None
    if not texts:
        raise UserError(f"{path}: holds no utterance, expected lines `key text`")
    return texts


def _check_keys(references: dict[str, str], hypotheses: dict[str, str], ref: str | Path, hyp: str | Path) -> None:
    """sclite scores what both files hold and is silent about the rest; a rate over a part of a set is refused here."""
    if others := other_utterances(references, hypotheses):
        raise UserError(f"{hyp}: utterances differ from {ref}: {others}; nothing is scored, decode exactly this set")


def _trn_ids(references: dict[str, str], utt2spk: str | Path | None) -> list[str]:
    """`(speaker-utterance)` of each reference."""
    if utt2spk is None:
        return [trn_id(key, key) for key in references]
    speakers = read_texts(utt2spk)
    missing = [key for key in references if not speakers.get(key)]
    if missing:
        which = f"{len(missing)} utterances ({listed(missing)})"
        raise UserError(f"{utt2spk}: no speaker for {which}; add lines `key speaker`")
    return [trn_id(speakers[key], key) for key in references]


def _one_blank(text: str) -> str:
    return " ".join(text.split())


def _align(ids: list[str], pairs: list[tuple[str, str]], split: Split) -> _Aligned:
    """Split and align (reference, hypothesis) pairs."""
    texts = [[" ".join(escape(split(text))) for text in pair] for pair in pairs]
    references, hypotheses = ("".join(map("{}\t{}\n".format, side, ids)) for side in zip(*texts, strict=True))
    lower = [(ascii_lower(old), ascii_lower(new)) for old, new in texts]
    rows = zip(ids, lower, align_texts(lower), strict=True)
    return _Aligned(
        (references, hypotheses), [AlignedUtterance(ascii_lower(name), *pair, marks) for name, pair, marks in rows]
    )


def _count(aligned: _Aligned, speakers: Sequence[str] | None, with_jiwer: bool = False) -> Scored:
    counts = [count_marks(each.marks) for each in aligned.utterances]
    intervals = [rate_interval(counts)]
    if speakers:
        intervals.append(rate_interval(counts, speakers))
    return Scored(counts, intervals, _jiwer_errors(aligned) if with_jiwer else None)


def _jiwer_errors(aligned: _Aligned) -> int:
    """Substitutions, deletions and insertions that jiwer counts over the same tokens."""
    errors = 0
    for start in range(0, len(aligned.utterances), CHUNK):
        chunk = aligned.utterances[start : start + CHUNK]
        found = jiwer.process_words([each.reference for each in chunk], [each.hypothesis for each in chunk])
        errors += found.substitutions + found.deletions + found.insertions
    return errors


def _write(directory: Path, aligned: _Aligned) -> None:
    contents = (*([trn] for trn in aligned.trns), result_txt(aligned.utterances))
    for name, content in zip(SCORE_FILES, contents, strict=True):
        with atomic_write(directory / name) as file:
            file.writelines(content)


def _remove(directory: Path) -> None:
    """A measure that is not scored now must not stay behind from an earlier hypothesis."""
    for name in SCORE_FILES:
        (directory / name).unlink(missing_ok=True)
