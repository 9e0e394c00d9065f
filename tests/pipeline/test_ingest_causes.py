"""What FFmpeg says when a camera does not open, in words for a person."""

from __future__ import annotations

import pytest

from camlink.pipeline.ingest.decoder import _cause

REFUSED = "nothing listens at that address and port"


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("[rtsp @ 0x55d240122c80] method DESCRIBE failed: 401 Unauthorized", "the camera refuses the user name"),
        ("[OPENCV:FFMPEG:16] HTTP error 404 Not Found", "the camera has no stream of that name"),
        ("Server returned 403 Forbidden (access denied): 'http://10.0.0.7/401'", "the camera forbids this user"),
        ("[tcp @ 0x55d240122c80] Connection to tcp://10.0.0.7:554?timeout=0 failed: Connection refused", REFUSED),
        ("[OPENCV:FFMPEG:16] Connection to tcp://10.0.0.7:8401?timeout=0 failed: Connection refused", REFUSED),
        ("[Errno 111] Connection refused: 'rtsp://10.0.0.7/Streaming/Channels/401'", REFUSED),
        ("[Errno 5] Input/output error: 'rtsp://10.0.0.7/Streaming/Channels/404'", ""),
        ("Failed to resolve hostname cam.local: Temporary failure in name resolution", "the host name is not known"),
    ],
)
def test_the_cause_is_taken_from_what_ffmpeg_says_and_not_from_numbers_in_addresses(said: str, meaning: str) -> None:
    found = _cause(f"{said}\n", "rtsp://10.0.0.7/s")
    assert found.startswith(meaning) and bool(found) == bool(meaning)
