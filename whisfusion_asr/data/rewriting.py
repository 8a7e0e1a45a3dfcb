"""Transcripts as Whisper writes: its case, punctuation, spelling and digits on the words of a corpus.

Many corpora write capitals only, or no punctuation. Whisper's decoder does not: trained on such texts it unlearns names
and sentences, and reads worse than before.
"""

from collections.abc import Callable, Sequence

from rapidfuzz.distance import Levenshtein

from whisfusion_asr.data.text_form import TextForm, without_capitals_only

_PLAIN = TextForm("lower", "remove")
_CLOSING = ".,;:?!"


def rewritten(given: str, heard: str, normalizer: Callable[[str], str]) -> str:
    """The words of `given`, written as in `heard`, Whisper's transcript of the same audio.

    Words that both have are taken from `heard`. Where they differ, `heard` is taken if the two are one to the
    normaliser (of English: "mister" and "Mr.", "thirty" and "30"), else the given words, with the capitals and the
    closing mark of those in their place. What is given in capitals only is in lower case there.
    """
    words = without_capitals_only(given).split()
    theirs = [word for word in heard.split() if _PLAIN(word)]
    out: list[str] = []
    at = until = 0  # words and theirs that are done
    for first, behind, number in _shared(words, theirs):
        out += _differing(words[at:first], theirs[until:number], normalizer)
        out.append(theirs[number])
        at, until = behind, number + 1
    return " ".join(out + _differing(words[at:], theirs[until:], normalizer))


def _shared(words: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int, int]]:
    """Which of their words stand for which given ones: first, behind the last, number of theirs; "self-respect" for the
    two of "self respect"."""
    mine, other = [_PLAIN(word).split() for word in words], [_PLAIN(word).split() for word in theirs]
    starts = {sum(map(len, mine[:place])): place for place, parts in enumerate(mine) if parts}
    ends = {first + len(mine[place]): place + 1 for first, place in starts.items()}
    steps = Levenshtein.opcodes(sum(mine, []), sum(other, []))
    partner = {step.dest_start + k: step.src_start + k for step in steps if step.tag == "equal"
               for k in range(step.src_end - step.src_start)}
    shared, part = [], 0
    for number, parts in enumerate(other):
        found = [partner.get(part + k, -1) for k in range(len(parts))]
        part += len(parts)
        first, last = found[0], found[-1]
        in_one_row = first >= 0 and found == list(range(first, last + 1))
        if in_one_row and first in starts and last + 1 in ends:
            shared.append((starts[first], ends[last + 1], number))
    return shared


def _differing(words: Sequence[str], theirs: Sequence[str], normalizer: Callable[[str], str]) -> list[str]:
    if not words or not theirs:
        return list(words)
    if normalizer(" ".join(words)) == normalizer(" ".join(theirs)):
        return list(theirs)
    if len(words) == len(theirs) > 1:
        return sum((_differing([word], [other], normalizer) for word, other in zip(words, theirs, strict=True)), [])
    out = list(words)
    if next(filter(str.isalnum, theirs[0]), "").isupper():
        out[0] = out[0][:1].upper() + out[0][1:]
    if theirs[-1][-1] in _CLOSING:
        out[-1] = out[-1].rstrip(_CLOSING) + theirs[-1][-1]
    return out
