"""Score a hypothesis file: score_{wer,cer,ter}/{ref.trn,hyp.trn,result.txt} and summary.json."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from pathlib import Path

from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write
from whisfusion_asr.scoring.align import align
from whisfusion_asr.scoring.error_rate import ErrorCounts, count_edits
from whisfusion_asr.scoring.normalize import get_normalizer
from whisfusion_asr.scoring.result_txt import result_txt
from whisfusion_asr.scoring.trn import ascii_lower, escape, trn_id, trn_line

Split = Callable[[str], list[str]]
SCORE_FILES = ("ref.trn", "hyp.trn", "result.txt")
LISTED_KEYS = 5


@dataclass(frozen=True)
class Scored:
    """One measure of one set: the contents of its SCORE_FILES, and the counts of each utterance."""

    contents: tuple[str, str, str]
    by_utterance: list[ErrorCounts]

    @property
    def counts(self) -> ErrorCounts:
        """The counts of the set."""
        return reduce(add, self.by_utterance)

    def as_json(self) -> dict[str, object]:
        """Rates first (the corpus rate, then the mean of the utterances' rates), then the counts behind them."""
        rates = [each.percent for each in self.by_utterance if each.percent is not None]
        return {
            "corpus_percent": self.counts.percent,
            "mean_over_utterances_percent": sum(rates) / len(rates) if rates else None,
            "utterances_in_mean": len(rates),
            "reference_length": self.counts.reference_length,
            "hypothesis_length": self.counts.hypothesis_length,
            "errors": self.counts.errors,
            **asdict(self.counts),
            "wrong_utterance_percent": self.counts.wrong_utterance_percent,
        }


def score_files(
    ref: str | Path,
    hyp: str | Path,
    utt2spk: str | Path | None,
    out_dir: str | Path,
    tokenizer: Split | None = None,
    normalizer: str = "none",
) -> dict[str, ErrorCounts]:
    """Write the score directories of one decoded set and return the counts by measure ("wer", "cer", "ter").

    ref, hyp: Kaldi text files (`key words`; a key alone is an empty text), joined by key, written in the order of `ref`
    utt2spk: lines `key speaker`; None makes every utterance its own speaker
    tokenizer: text -> pieces for the token error rate; None leaves it out, and removes what an earlier run left of it
    raises UserError: the files' keys differ; a file is empty, malformed or not UTF-8; an unknown normaliser
    """
    clean = get_normalizer(normalizer)
    references, hypotheses = read_texts(ref), read_texts(hyp)
    _check_keys(references, hypotheses, ref, hyp)
    ids = _trn_ids(references, utt2spk)
    pairs = [(_one_blank(clean(text)), _one_blank(clean(hypotheses[key]))) for key, text in references.items()]
    splits: dict[str, Split | None] = {"wer": str.split, "cer": list, "ter": tokenizer}
    scored = {name: _score(ids, pairs, split) for name, split in splits.items() if split}
    for name in splits:
        directory = Path(out_dir) / f"score_{name}"
        if name in scored:
            _write(directory, scored[name])
        else:
            _remove(directory)
    wer = scored["wer"].as_json()
    summary = {
        "corpus_wer_percent": wer["corpus_percent"],
        "mean_over_utterances_wer_percent": wer["mean_over_utterances_percent"],
        "utterances": len(ids),
        "reference_words": wer["reference_length"],
        "normalizer": normalizer,
    }
    with atomic_write(Path(out_dir) / "summary.json") as file:
        json.dump(summary | {name: each.as_json() for name, each in scored.items()}, file, indent=2)
        file.write("\n")
    return {name: each.counts for name, each in scored.items()}


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
    missing = [key for key in references if key not in hypotheses]
    extra = [key for key in hypotheses if key not in references]
    if missing or extra:
        kinds = ((missing, "missing"), (extra, "extra"))
        parts = ", ".join(f"{len(keys)} {what} ({_listed(keys)})" for keys, what in kinds if keys)
        raise UserError(f"{hyp}: utterances differ from {ref}: {parts}; nothing is scored, decode exactly this set")


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:LISTED_KEYS]) + (" ..." if len(keys) > LISTED_KEYS else "")


def _trn_ids(references: dict[str, str], utt2spk: str | Path | None) -> list[str]:
    """`(speaker-utterance)` of each reference."""
    if utt2spk is None:
        return [trn_id(key, key) for key in references]
    speakers = read_texts(utt2spk)
    missing = [key for key in references if not speakers.get(key)]
    if missing:
        which = f"{len(missing)} utterances ({_listed(missing)})"
        raise UserError(f"{utt2spk}: no speaker for {which}; add lines `key speaker`")
    return [trn_id(speakers[key], key) for key in references]


def _one_blank(text: str) -> str:
    return " ".join(text.split())


def _score(ids: list[str], pairs: list[tuple[str, str]], split: Split) -> Scored:
    """Split, align and count (reference, hypothesis) pairs."""
    tokens = [(escape(split(reference)), escape(split(hypothesis))) for reference, hypothesis in pairs]
    lower = [tuple([ascii_lower(token) for token in side] for side in pair) for pair in tokens]
    alignments = [align(*pair) for pair in lower]
    trns = ["".join(map(trn_line, side, ids)) for side in zip(*tokens, strict=True)]
    result = result_txt(list(zip(map(ascii_lower, ids), alignments, strict=True)))
    return Scored((*trns, result), [count_edits(edits) for edits in alignments])


def _write(directory: Path, scored: Scored) -> None:
    for name, content in zip(SCORE_FILES, scored.contents, strict=True):
        with atomic_write(directory / name) as file:
            file.write(content)


def _remove(directory: Path) -> None:
    """A measure that is not scored now must not stay behind from an earlier hypothesis."""
    for name in SCORE_FILES:
        (directory / name).unlink(missing_ok=True)
