"""Error rates that agree with NIST's sclite to the byte: normalise, align, count, write. Never imports torch."""

from whisfusion_asr.scoring.align import Edit, align
from whisfusion_asr.scoring.error_rate import ErrorCounts, count_edits
from whisfusion_asr.scoring.normalize import NORMALIZERS, get_normalizer
from whisfusion_asr.scoring.score import score_files

__all__ = ["NORMALIZERS", "Edit", "ErrorCounts", "align", "count_edits", "get_normalizer", "score_files"]
