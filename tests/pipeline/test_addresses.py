"""Passwords in addresses: any reaches the camera whole, none is ever shown."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from camlink.pipeline.addresses import check_address, expand_environment, find_path
from camlink.pipeline.config import CameraConfig, check_config, load_config
from camlink.pipeline.errors import SourceError
from camlink.pipeline.ingest import mask_url
from camlink.pipeline.ingest.discover import discover

passwords = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0"), min_size=4, max_size=24
)


def fragments(secret: str) -> Iterator[str]:
    return (secret[n : n + 4] for n in range(len(secret) - 3))


def assert_hidden(secret: str, shown: str, known: str) -> None:
    """No four letters of ``secret`` in a row are shown, unless the same text says them of any password."""
    assert not [part for part in fragments(secret) if part in shown and part not in known]


@example("s3cr3t pw")
@example("hunter2@x/y")
@example("a?b@c#d&e=f")
@given(passwords)
def test_no_password_is_seen_in_a_masked_address(secret: str) -> None:
    for text in ("rtsp://admin:{}@10.0.0.7/s1", "opening http://admin:{}@10.0.0.7/v?size=2 failed"):
        assert_hidden(secret, mask_url(text.format(secret)), mask_url(text.format("")) + "=***")
    assume("&" not in secret and "@" not in secret)
    assert_hidden(secret, mask_url(f"http://10.0.0.7/v?p={secret}"), "http://10.0.0.7/v?p=***")


@example("s3cr3t pw")
@example("hunter2@x/y")
@given(passwords)
def test_any_password_of_the_environment_reaches_the_camera_and_is_not_shown(secret: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAM_PW", secret)
        camera = CameraConfig(id="a", source="rtsp://admin:${CAM_PW}@10.0.0.7:554/s1?p=${CAM_PW}")
    parts = urlsplit(str(camera.source))
    assert (parts.hostname, parts.port, unquote(str(parts.password))) == ("10.0.0.7", 554, secret)
    assert unquote(parts.query) == f"p={secret}"
    spec = camera.source_spec()
    assert {camera.shown_source, mask_url(camera.source), spec.shown} == {"rtsp://***@10.0.0.7:554/s1?p=***"}


@example("s3cr3t pw")
@example("hunter2@x/y")
@example("se:cret")
@given(passwords)
def test_a_password_written_into_the_file_is_used_or_refused_and_never_shown(secret: str) -> None:
    assume("${" not in secret)  # that is a variable, whose name is no secret

    def shown(password: str, scheme: str) -> str:
        source = json.dumps(f"{scheme}://admin:{password}@10.0.0.7/s1")
        file = Path(folder) / "site.yaml"
        file.write_text(f"models: building\ncameras: [{{id: a, source: {source}}}]\n", encoding="utf-8")
        found = check_config(file)
        return str([p.message for p in found]) if found else json.dumps(load_config(file).masked())

    with tempfile.TemporaryDirectory() as folder:
        for scheme in ("rtsp", "rtps"):
            every = "".join(shown(password, scheme) for password in ("xxxx", "x@x", "x x"))
            assert_hidden(secret, shown(secret, scheme), every)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("rtsp://u:se cret@h/s", "a space"),
        ("rtsp://u:secret\n@h/s", "a control character"),
        ("rtsp://u:se@cret@h/s", "%40"),
        ("rtsp://u:se/cret@h/s", "%2F"),
        ("rtsp://u:se?cret@h/s", "%3F"),
        ("rtsp://u:secret/s", "the port"),
    ],
)
def test_addresses_that_can_be_read_in_two_ways_are_refused_without_being_shown(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        check_address(url)
    assert "cret" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    ["rtsp://10.0.0.7/s", "rtsp://u:p%40q@[fe80::1]:554/s?x=1", "udp://@239.0.0.1:1234", "http://u@h:80?a=b"],
)
def test_plain_addresses_are_left_alone(url: str) -> None:
    check_address(url)
    assert expand_environment(url, {}) == url


def test_a_variable_may_hold_user_and_password_or_the_whole_address() -> None:
    assert expand_environment("rtsp://${LOGIN}@h/s", {"LOGIN": "me:p/w"}) == "rtsp://me:p%2Fw@h/s"
    assert expand_environment("${CAM}", {"CAM": "rtsp://me:pw@h/s"}) == "rtsp://me:pw@h/s"


def test_a_key_in_the_path_is_shown_as_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_KEY", "s3cret")
    assert (
        CameraConfig(id="a", source="rtmp://h/live/${STREAM_KEY}").source_spec().shown == "rtmp://h/live/${STREAM_KEY}"
    )


@pytest.mark.parametrize("path", ["admin:s3cret@10.0.0.7/s", "rtsp:/u:s3cret@h/s", " rtsp://u:s3cret@h/s"])
def test_an_address_taken_for_a_path_is_not_shown(path: str) -> None:
    with pytest.raises(ValueError, match="without a scheme") as error:
        find_path(path, None)
    assert "s3cret" not in str(error.value)
    with pytest.raises(SourceError) as refused:
        discover(Path("rtsp://u:s3cret@h/s"), fps=None, timezone="UTC")
    assert "s3cret" not in str(refused.value) and "camlink run" in str(refused.value)


def test_a_device_is_no_file_that_could_be_read_to_its_end() -> None:
    assert find_path("/dev/null", None) == "/dev/null"  # as a camera's source may be
    with pytest.raises(ValueError, match='"/dev/null" is a device or pipe; a file is wanted'):
        find_path("/dev/null", None, "file")
