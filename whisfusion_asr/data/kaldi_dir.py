"""Kaldi data directories: read, validate, fix, split, subset, combine, filter."""

from whisfusion_asr.data.tables import read_segments, read_table, write_table

__all__ = ["read_segments", "read_table", "write_table"]
