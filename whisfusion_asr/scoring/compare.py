"""Two systems on the same set, and one system under several seeds: differences never without their uncertainty."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from pathlib import Path
from statistics import fmean, stdev

from whisfusion_asr.errors import UserError
from whisfusion_asr.scoring.align import align_texts
from whisfusion_asr.scoring.bootstrap import (
    REPLICATES,
    Interval,
    PairedBootstrap,
    p_text,
    paired_bootstrap,
    points_text,
    rate_interval,
)
from whisfusion_asr.scoring.error_rate import ErrorCounts, count_marks, percent_text
from whisfusion_asr.scoring.mapsswe import Mapsswe, mapsswe
from whisfusion_asr.scoring.trn import ascii_lower, drawn_speakers, escape, other_utterances, read_trn, trn_id

UNITS = {"wer": "words", "cer": "characters", "ter": "tokens"}


@dataclass(frozen=True)
class ScoredSet:
    """What a score directory holds: an entry for each utterance, in the order of its ref.trn."""

    place: str
    identifiers: list[str]
    """The trn ids `(speaker-utterance)`."""
    references: list[str]
    """Reference tokens in lower case, with a blank between two."""
    marks: list[str]
    """The alignments, as `align_marks` gives them."""

    @property
    def counts(self) -> list[ErrorCounts]:
        """The error counts of each utterance."""
        return [count_marks(each) for each in self.marks]

    @property
    def speakers(self) -> list[str]:
        """The speaker of each utterance, whose utterances are drawn together."""
        return drawn_speakers(self.identifiers)


@dataclass(frozen=True)
class Rate:
    """A system's corpus rate in percent, with its intervals."""

    percent: float | None
    errors: int
    reference_length: int
    by_utterance: Interval
    by_speaker: Interval


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same references. Differences are B minus A: negative when B is better."""

    utterances: int
    a: Rate
    b: Rate
    difference: float | None
    """In points of percent."""
    mapsswe: Mapsswe
    by_utterance: PairedBootstrap
    by_speaker: PairedBootstrap

    def as_json(self) -> dict[str, object]:
        """The fields by name, records as objects."""
        return asdict(self)


@dataclass(frozen=True)
class SeedSpread:
    """Corpus rates of one stochastic decoder under several seeds, in percent."""

    seeds: int
    mean: float
    deviation: float | None
    """Of the sample (n - 1); None for a single seed. It holds the decoder's chance alone, not that of the test set."""
    lowest: float
    highest: float

    def as_json(self) -> dict[str, object]:
        """The fields by name."""
        return asdict(self)


def read_score_dir(directory: str | Path) -> ScoredSet:
    """Read the ref.trn and hyp.trn of a score directory (score_wer, score_cer or score_ter) and align them again.

    raises UserError: a missing or malformed file; the two files hold different utterances
    """
    directory = Path(directory)
    references, hypotheses = read_trn(directory / "ref.trn"), read_trn(directory / "hyp.trn")
    if others := other_utterances(references, hypotheses):
        raise UserError(f"{directory}: hyp.trn holds other utterances than ref.trn: {others}; score again to rewrite "
                        "both")
    lower = {name: ascii_lower(text) for name, text in references.items()}
    marks = align_texts([(text, ascii_lower(hypotheses[name])) for name, text in lower.items()])
    return ScoredSet(str(directory), [ascii_lower(name) for name in lower], list(lower.values()), marks)


def scored_texts(
    place: str, references: Mapping[str, str], hypotheses: Mapping[str, str], speakers: Mapping[str, str]
) -> ScoredSet:
    """What a score directory of these texts would hold.

    references, hypotheses, speakers: by utterance, the latter two of all references; place: their name in messages
    """
    identifiers = [trn_id(speakers[key], key) for key in references]
    wanted, found = ([" ".join(escape(ascii_lower(texts[key]).split())) for key in references]
                     for texts in (references, hypotheses))
    return ScoredSet(place, identifiers, wanted, align_texts(list(zip(wanted, found, strict=True))))


def compare_systems(a: ScoredSet, b: ScoredSet, replicates: int = REPLICATES, seed: int = 0) -> Comparison:
    """Test whether system B differs from system A.

    The order of the utterances does not matter.

    replicates, seed: of the bootstraps
    raises UserError: the utterances or their references differ (other sets, normalisers or token models)
    """
    b = _in_order_of(a, b)
    counts_a, counts_b, speakers = a.counts, b.counts, a.speakers
    rate_a, rate_b = (_rate(counts, speakers, replicates, seed) for counts in (counts_a, counts_b))
    by_utterance = paired_bootstrap(counts_a, counts_b, replicates=replicates, seed=seed)
    by_speaker = paired_bootstrap(counts_a, counts_b, speakers, replicates=replicates, seed=seed)
    tested = mapsswe(a.marks, b.marks)
    return Comparison(len(a.marks), rate_a, rate_b, by_utterance.difference, tested, by_utterance, by_speaker)


def _in_order_of(a: ScoredSet, b: ScoredSet) -> ScoredSet:
    """B with its utterances in the order of A."""
    places = {identifier: place for place, identifier in enumerate(b.identifiers)}
    if others := other_utterances(dict.fromkeys(a.identifiers), places):
        raise UserError(f"{b.place}: utterances differ from {a.place}: {others}; score both systems on the same set")
    order = [places[identifier] for identifier in a.identifiers]
    references, marks = [b.references[place] for place in order], [b.marks[place] for place in order]
    for identifier, old, new in zip(a.identifiers, a.references, references, strict=True):
        if old != new:
            raise UserError(
                f"{b.place}: the reference of {identifier} differs from {a.place}; score both with the same "
                "normalizer, token model and reference text"
            )
    return ScoredSet(b.place, a.identifiers, references, marks)


def _rate(counts: Sequence[ErrorCounts], speakers: Sequence[str], replicates: int, seed: int) -> Rate:
    total = reduce(add, counts)
    by_utterance = rate_interval(counts, replicates=replicates, seed=seed)
    by_speaker = rate_interval(counts, speakers, replicates=replicates, seed=seed)
    return Rate(total.percent, total.errors, total.reference_length, by_utterance, by_speaker)


def seed_spread(percents: Mapping[int, float]) -> SeedSpread:
    """Mean and deviation over decoding seeds; percents: seed -> corpus rate of the same set.

    raises ValueError: no seed
    """
    if not percents:
        raise ValueError("no seeds, expected at least one rate")
    values = list(percents.values())
    deviation = stdev(values) if len(values) > 1 else None
    return SeedSpread(len(values), fmean(values), deviation, min(values), max(values))


def comparison_lines(comparison: Comparison, measure: str) -> list[str]:
    """A comparison for a terminal; measure: "wer", "cer" or "ter"."""
    lines = [
        f"%{measure.upper()} {name} {percent_text(rate.percent)} [ {rate.errors} / {rate.reference_length} ]; "
        f"{rate.by_utterance}; {rate.by_speaker}"
        for name, rate in (("A", comparison.a), ("B", comparison.b))
    ]
    tested = comparison.mapsswe
    lines.append(f"B - A {points_text(comparison.difference)} points on {comparison.utterances} utterances, "
                 f"{comparison.a.reference_length} reference {UNITS[measure]}")
    lines += [f"    paired bootstrap: {each}" for each in (comparison.by_utterance, comparison.by_speaker)]
    return [*lines, f"    MAPSSWE: p {p_text(tested.p_value)} ({tested.segments} segments)"]
