"""Pictures for people to look at: of audit frames with predictions, to show disagreements; of others now and then."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from camlink.operators.sampling import FramePlan
from camlink.pipeline.records import Frame, Picture

logger = logging.getLogger(__name__)

PREVIEW_EVERY = timedelta(seconds=10)  # of event time: how often a camera's picture is given for people to look at

Encode = Callable[[Frame], bytes]


class Previews:
    """Those of all cameras of one worker."""

    def __init__(self, encode: Encode | None) -> None:
        """``encode``: to a small JPEG; None where nobody looks."""
        self._encode = encode
        self._given: dict[str, datetime] = {}  # by camera: captured_at of the frame whose picture was given last

    def forget(self, camera_id: str) -> None:
        """Drop a camera that another worker has now."""
        self._given.pop(camera_id, None)

    def of(self, frame: Frame, plan: FramePlan, *, predicted: bool) -> Iterable[Picture]:
        """Give the frame's picture if it is due, or wanted since the frame is audited and anything was ``predicted``.

        None of a trace, which has no pictures, nor of a damaged one.
        """
        if self._encode is None or plan.purpose == "relabel" or 0 in frame.picture.shape:
            return
        at, last = frame.captured_at, self._given.get(frame.camera_id)
        due = last is None or abs(at - last) >= PREVIEW_EVERY  # a clock may be set back
        if not due and not (plan.purpose == "audit" and predicted):
            return
        self._given[frame.camera_id] = at
        try:
            yield Picture(frame.camera_id, frame.index, at, self._encode(frame), plan.purpose)
        except ValueError as error:
            logger.warning('camera "%s", frame %d: no preview: %s', frame.camera_id, frame.index, error)
