"""The results of a run: written as Parquet by day and camera, merged, and read back."""

from camlink.pipeline.results.log import ResultsLog, RunInfo, RunResults

__all__ = ["ResultsLog", "RunInfo", "RunResults"]
