"""Alignment of two token rows with sclite's costs: correct 0, insertion 3, deletion 3, substitution 4.

These are not edit-distance costs: three insertions, two matches and three deletions (18) beat five substitutions (20),
so the number of errors can exceed the Levenshtein distance. Ties fall as in sclite: the same words are marked, not only
the same number of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

INDEL, SUBSTITUTION = 3, 4


class Edit(NamedTuple):
    """One column of an alignment: kind C, S, D or I; the token that a side lacks is the empty string."""

    kind: str
    reference: str
    hypothesis: str


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Edit]:
    """Align R reference tokens with H hypothesis tokens; tokens match when they are equal strings.

    returns: the edits from left to right; C + S + D = R and C + S + I = H
    """
    # The trace below would walk down a common ending diagonally in any case (a match is never dearer than its two
    # neighbours), so that cutting it off changes no alignment. A common beginning does not have this property.
    end = 0
    while end < min(len(reference), len(hypothesis)) and reference[-1 - end] == hypothesis[-1 - end]:
        end += 1
    rows, columns = len(reference) - end, len(hypothesis) - end
    edits = _trace_back(_cost_table(reference[:rows], hypothesis[:columns]), reference, hypothesis)
    return edits + [Edit("C", *pair) for pair in zip(reference[rows:], hypothesis[columns:], strict=True)]


def _cost_table(reference: Sequence[str], hypothesis: Sequence[str]) -> np.ndarray:
    """Least cost of aligning each beginning of the reference with each beginning of the hypothesis.

    returns: (R + 1, H + 1) int32
    """
    ids: dict[str, int] = {}
    reference_ids = [ids.setdefault(token, len(ids)) for token in reference]
    hypothesis_ids = np.array([ids.setdefault(token, len(ids)) for token in hypothesis], dtype=np.int32)
    ramp = INDEL * np.arange(len(hypothesis) + 1, dtype=np.int32)
    table = np.empty((len(reference) + 1, len(hypothesis) + 1), dtype=np.int32)
    table[0] = ramp
    for row, token in enumerate(reference_ids, start=1):
        above, here = table[row - 1], table[row]
        here[0] = INDEL * row
        np.minimum(above[:-1] + SUBSTITUTION * (hypothesis_ids != token), above[1:] + INDEL, out=here[1:])
        # Insertions run along the row: min over k <= j of here[k] + 3 (j - k), a running minimum without the ramp.
        here -= ramp
        np.minimum.accumulate(here, out=here)
        here += ramp
    return table


def _trace_back(table: np.ndarray, reference: Sequence[str], hypothesis: Sequence[str]) -> list[Edit]:
    """Read the edits off a table from its last cell. sclite's order among equals: diagonal, insertion, deletion."""
    row, column = table.shape[0] - 1, table.shape[1] - 1
    edits = []
    while row or column:
        cost = table[row, column]
        if row and column:
            old, new = reference[row - 1], hypothesis[column - 1]
            if cost == table[row - 1, column - 1] + (0 if old == new else SUBSTITUTION):
                edits.append(Edit("C" if old == new else "S", old, new))
                row, column = row - 1, column - 1
                continue
        if column and cost == table[row, column - 1] + INDEL:
            column -= 1
            edits.append(Edit("I", "", hypothesis[column]))
        else:
            row -= 1
            edits.append(Edit("D", reference[row], ""))
    return edits[::-1]
