"""Transcripts by the original Whisper for utterances that have none; those not to be trusted are dropped and listed."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whisfusion_asr.data.kaldi_dir import select, write_dir
from whisfusion_asr.data.tables import counted
from whisfusion_asr.data.text_form import TextForm
from whisfusion_asr.data.validate import scan
from whisfusion_asr.errors import UserError


@dataclass(frozen=True)
class LabelRules:
    """When a transcript is not trusted. The defaults are the thresholds of Whisper's own program, where they make it
    decode again or take a window for silence (Radford et al. 2022, section 4.5).

    min_mean_log_prob: of the tokens and the end, natural logarithm; max_compression: zlib ratio, for repetitions
    max_no_speech: probability that nothing is said; min_seconds, max_seconds: duration of what Whisper hears
    """

    min_mean_log_prob: float = -1.0
    max_compression: float = 2.4
    max_no_speech: float = 0.6
    min_seconds: float = 0.1
    max_seconds: float = 30.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_seconds < self.max_seconds <= 30:
            raise UserError(f"min_seconds {self.min_seconds:g} and max_seconds {self.max_seconds:g}: expected 0 to 30, "
                            "the second one larger")  # fmt: skip

    def of_length(self, seconds: float) -> str | None:
        """Why an utterance is not even transcribed; None if it is."""
        if seconds < self.min_seconds:
            return f"too short: {seconds:.3f} s, expected {self.min_seconds:g} s or more"
        if seconds > self.max_seconds:
            return f"too long: {seconds:.3f} s, expected {self.max_seconds:g} s or less"
        return None

    def of_transcript(self, record: Mapping[str, Any]) -> str | None:
        """Why a line of candidates.jsonl, as `decode_whisper` writes them, is not trusted; None if it is."""
        found = record["candidates"][0]
        sure, ratio, silent = found["mean_log_prob"], found["compression_ratio"], found["no_speech"]
        if "canvas_full" in record["flags"]:
            return f"no end: {len(found['tokens'])} tokens without an end of the text"
        if silent is not None and silent > self.max_no_speech:
            return f"no speech: probability {silent:.2f}, expected {self.max_no_speech:g} or less"
        if ratio > self.max_compression:
            return f"repetitive: compression ratio {ratio:.2f}, expected {self.max_compression:g} or less"
        if sure < self.min_mean_log_prob:
            return f"unsure: mean log-probability {sure:.2f}, expected {self.min_mean_log_prob:g} or more"
        return None


def unlabelled(data_dir: str | Path, replace: bool = False) -> set[str]:
    """The utterances of a directory that have no line in its `text`, or no `text` at all; all with `replace`."""
    tables = scan(data_dir)
    return tables.keys("utt2spk") - (set() if replace else tables.keys("text"))


def write_labels(
    data_dir: str | Path, refused: Mapping[str, str], records: Iterable[Mapping[str, Any]], rules: LabelRules,
    form: TextForm, rewrite: Callable[[str, str], str] | None = None,
) -> str:
    """Complete the `text` of a directory and drop what has no trusted transcript.

    refused: utterance -> why it was not transcribed; records: lines of candidates.jsonl of all others to be labelled
    form: how the transcripts are written; one of which nothing is left is dropped
    rewrite: (text, what Whisper heard) -> new text, for utterances that have one, which are never dropped; None: such
        a text is replaced
    The dropped ones are listed in `dropped.tsv` (utterance, tab, reason), the labelled ones in `labelled` (utterance,
    mean log-probability). Returns a line with the counts. Raises UserError: nothing is left.
    """
    directory, labels, sure, dropped = Path(data_dir), {}, {}, dict(refused)
    tables = {name: {row.key: row.value for row in rows} for name, rows in scan(directory).rows.items()}
    given = tables["text"] if rewrite else {}
    texts = {key: given[key] for key in given if dropped.pop(key, None)}  # what Whisper cannot hear stays as it is
    for record in records:
        key, text = record["utt_id"], form(record["text"])
        if rewrite and key in given:
            texts[key] = form(rewrite(given[key], record["text"]))
            continue
        reason = rules.of_transcript(record) or (None if text else "empty text")
        if reason:
            dropped[key] = reason
        else:
            labels[key], sure[key] = text, record["candidates"][0]["mean_log_prob"]
    tables["text"] |= texts | labels
    counts = ", ".join(f"{n} {kind}" for kind, n in Counter(r.partition(":")[0] for r in dropped.values()).items())
    kept = [key for key in tables["utt2spk"] if key not in dropped]
    if not kept:
        raise UserError(f"{directory}: no transcript can be trusted ({counts}); listen to it, or change the rules")
    write_dir(directory, select(tables, kept), {
        "dropped.tsv": "".join(f"{key}\t{dropped[key]}\n" for key in sorted(dropped)),
        "labelled": "".join(f"{key} {sure[key]:.5f}\n" for key in sorted(sure)),
    })  # fmt: skip
    told = f"; rewrote {len(texts)}" if texts else ""
    told += f"; dropped {counts} (see dropped.tsv)" if dropped else ""
    return f"{directory}: labelled {counted(len(labels), 'utterance')} of {len(labels) + len(dropped)}{told}"
