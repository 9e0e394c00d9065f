"""Per-camera accuracy reports: terminal, JSON and one self-contained HTML file."""

from __future__ import annotations

import json
from pathlib import Path

from camlink.pipeline.durable import write_text
from camlink.pipeline.reports.data import Report, build_report, survey
from camlink.pipeline.reports.notes import headline
from camlink.pipeline.reports.terminal import print_report
from camlink.pipeline.results import RunResults

__all__ = ["build_page", "build_report", "headline", "print_report", "save_report", "write_report"]


def write_report(run_dir: Path) -> Path:
    """Write ``report.json`` and ``report.html`` into the run folder and return the page's path.

    Raises `ResultsError` when the folder holds no run or cannot be written.
    """
    return save_report(run_dir, *build_page(run_dir))


def build_page(run_dir: Path) -> tuple[Report, str]:
    """Return the report as `build_report` does, and as a page. The rows, which may be many, are read once for both."""
    from camlink.pipeline.reports.html import Page

    results = RunResults(run_dir)
    page = Page(results)
    report: Report = survey(results, page.add_camera)
    return report, page.render(report)


def save_report(run_dir: Path, report: Report, page: str) -> Path:
    """Write what `build_page` gave into the run folder and return the page's path. Raises `ResultsError`."""
    html_path = Path(run_dir) / "report.html"
    write_text(Path(run_dir) / "report.json", json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False))
    write_text(html_path, page)
    return html_path
