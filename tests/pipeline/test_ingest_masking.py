"""What of an address may be shown."""

from __future__ import annotations

import pytest

from camlink.pipeline.ingest import mask_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://u:p@10.0.0.7:554/s?x=1", "rtsp://***@10.0.0.7:554/s?x=***"),
        ("rtsp://u:p@ss/w@rd@cam/s", "rtsp://***@cam/s"),
        ("http://cam/v.mjpg?user=a&password=b&size=2", "http://cam/v.mjpg?user=***&password=***&size=***"),
        ("https://cam/hls.m3u8?Token=abc", "https://cam/hls.m3u8?Token=***"),
        ("rtsp://cam/user=a_password=b_channel=1", "rtsp://cam/user=a_password=***"),
        ("http://admin:s3cr3t pw@cam/x.mjpg", "http://***@cam/x.mjpg"),
        ("http://cam/v?p=secret&loginpas=a b&c", "http://cam/v?p=***&loginpas=***&***"),
        ("http://u:p?w@cam/v", "http://***"),
        ("http://cam/v?p=x@secret", "http://***"),
        ("rtsp:/u:secret@cam/s", "rtsp:/***@cam/s"),
        ("rtsp://cam/s", "rtsp://cam/s"),
        (2, "device 2"),
    ],
)
def test_addresses_are_masked(url: str | int, shown: str) -> None:
    assert mask_url(url) == shown
