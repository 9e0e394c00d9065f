"""The results of a run: written as Parquet by day and camera, merged, and read back."""

from camlink.pipeline.results.log import ResultsLog
from camlink.pipeline.results.read import RunResults
from camlink.pipeline.run_info import RunInfo

__all__ = ["ResultsLog", "RunInfo", "RunResults"]
