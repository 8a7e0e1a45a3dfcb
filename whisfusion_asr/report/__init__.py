"""Results pages made from what the stages left on disk; nothing is computed again here."""

from whisfusion_asr.report.results import results_page, write_results

__all__ = ["results_page", "write_results"]
