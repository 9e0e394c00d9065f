"""Ingest: cameras, files and folders of stills turned into frames with event times.

Recorded footage is read by `open_source` and `merge`, live cameras by `open_source(live=True)`, several by
`Roster`:

    for reading in merge(open_source(spec, live=False) for spec in discover(path, fps=1.0, timezone="UTC")):
        ...  # Frame | FrameDropped | CameraEvent, in the order of event time

OpenCV is imported on first use, so importing this package is cheap.
"""

from camlink.pipeline.ingest.base import Reading, Source, SourceSpec
from camlink.pipeline.ingest.discover import discover
from camlink.pipeline.ingest.masking import mask_url
from camlink.pipeline.ingest.merge import merge
from camlink.pipeline.ingest.opening import expected_frames, open_source
from camlink.pipeline.ingest.roster import Roster

__all__ = [
    "Reading",
    "Roster",
    "Source",
    "SourceSpec",
    "discover",
    "expected_frames",
    "mask_url",
    "merge",
    "open_source",
]
