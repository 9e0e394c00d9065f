"""What `camlink config check` and a start warn of: keys that nobody reads, and sites that would execute everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from camlink.operators.gate import PER_FRAME_POLICIES
from camlink.pipeline.commands import worker
from camlink.pipeline.commands.settings import load_settings
from camlink.pipeline.config import built_in_configs, config_warnings, warnings_of
from camlink.pipeline.errors import BusError
from tests.pipeline.test_cli import camlink
from tests.pipeline.test_config_checks import HEAD, links, one, problems


@pytest.fixture(autouse=True)
def nothing_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let no costs be known: what was measured on this machine would be read, and warned by."""
    monkeypatch.setenv("CAMLINK_CACHE", str(tmp_path / "cache"))


def warnings(folder: Path, text: str) -> list[str]:
    """Return what is warned of in a file in which nothing is wrong, as ``LINE: MESSAGE``."""
    assert problems(folder, text) == []
    return [f"{warning.line}: {warning.message}" for warning in config_warnings(folder / "site.yaml")]


UNREAD = """links:
  bootstrap_frames: 50
  kind: set
adaptation:
  interval: 5min
  frames: 10
budgets: {time_share: 0.4}
"""


@pytest.mark.parametrize("policy", [*PER_FRAME_POLICIES, "standalone", "all"])
def test_keys_of_links_are_warned_of_where_answers_are_not_by_links(tmp_path: Path, policy: str) -> None:
    text = (HEAD + UNREAD).replace("time_share: 0.4", "memory_gb: 9") + f"policy: {policy}\n"
    kind, adaptation = warnings(tmp_path, text)
    assert kind.startswith(f"5: links.kind: policy {policy} does not read this, ")
    assert adaptation.startswith(f"6: adaptation: policy {policy} does not read interval, frames, ")
    assert all(told.endswith("choose policy mlink or mlink-exact") for told in (kind, adaptation))


@pytest.mark.parametrize(
    "text",
    [
        UNREAD + "policy: mlink\n",
        UNREAD + "policy: mlink-exact\n",
        "links: {bootstrap_frames: 50}\nbudgets: {time_share: 0.5}\n",
        "adaptation: {policy: off}\nbudgets: {latency_ms: 60}\n",  # what it asks for is what happens
        "target_agreement: 0.9\n",
        "targets: {persons: 0.9}\n",
        "policy: all\n",
    ],
)
def test_nothing_is_warned_of_where_every_key_is_read_or_changes_nothing(tmp_path: Path, text: str) -> None:
    assert warnings(tmp_path, HEAD + text) == []


def test_what_would_execute_everything_without_having_been_asked_to_is_warned_of(tmp_path: Path) -> None:
    (told,) = warnings(tmp_path, HEAD)
    assert "policy camlink (the default) has no budget and no target, so every model executes on every frame" in told
    assert told.endswith("set budgets.time_share, such as 0.4, or target_agreement")
    (told,) = warnings(tmp_path, HEAD + "policy: periodic\ntarget_agreement: 0.9\n")  # it aims at none
    assert "policy periodic has no budget, so every" in told and told.endswith("such as 0.4")
    assert one(tmp_path, HEAD + "budgets: {time_share: 40}\n").startswith("3: budgets.time_share: 40 is above 1")
    assert config_warnings(tmp_path / "site.yaml") == []
    (tmp_path / "site.yaml").write_text(HEAD)
    assert warnings_of(load_settings(str(tmp_path / "site.yaml"), {"budgets.time_share": 0.5})) == []


def test_whoever_names_no_policy_is_told_that_it_is_the_default(tmp_path: Path) -> None:
    assert "policy camlink (the default) does not read" in warnings(tmp_path, HEAD + UNREAD)[0]
    links(tmp_path / "fine", "persons")
    refused = one(tmp_path, HEAD + "links: {start: fine}\n")
    assert refused.startswith(
        "3: links.start: policy camlink (the default) does not use these links; leave `start` out"
    )


def test_a_policy_that_is_none_is_an_error_and_nothing_is_said_of_what_it_would_not_read(tmp_path: Path) -> None:
    assert 'did you mean "mlink"?' in one(tmp_path, HEAD + UNREAD + "policy: mlnk\n")
    assert config_warnings(tmp_path / "site.yaml") == []


@pytest.mark.parametrize("name", [*built_in_configs(), "deploy/kubernetes/base/site.yaml"])
def test_what_comes_with_camlink_has_no_key_that_is_not_read(name: str, repository: Path) -> None:
    assert config_warnings(repository / name if "/" in name else name) == []


def test_check_and_start_warn_in_the_same_words_and_go_on(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(HEAD + UNREAD)
    checked = camlink("config", "check", "site.yaml", cwd=tmp_path)
    assert checked.returncode == 0 and checked.stdout == "site.yaml: correct\n"
    told = [line for line in checked.stderr.splitlines() if line.startswith("warning: site.yaml:")]
    assert len(told) == 2
    replayed = camlink("replay", "nothing.mp4", "--config", "site.yaml", cwd=tmp_path)
    assert [line for line in replayed.stderr.splitlines() if line.startswith("warning: ")] == told


def test_of_all_workers_the_one_that_would_learn_links_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connected(*_: object) -> None:
        raise BusError("no broker")

    monkeypatch.setattr(worker, "_connected", connected)
    (tmp_path / "site.yaml").write_text(HEAD + UNREAD)
    for step in ("linking", "adaptation", "scheduler"):
        caplog.clear()
        with pytest.raises(BusError):
            worker._without_models(step, str(tmp_path / "site.yaml"), "", "", 1.0, None)
        assert [": policy camlink (the default) " in told for told in caplog.messages] == [True, True] * (
            step == "adaptation"
        )


def test_a_policy_named_by_an_option_is_the_one_that_counts(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(HEAD + UNREAD + "policy: mlink\n")
    assert warnings_of(load_settings(str(tmp_path / "site.yaml"), {})) == []
    told = warnings_of(load_settings(str(tmp_path / "site.yaml"), {"policy": "camlink"}))
    assert [problem.line for problem in told] == [5, 6]
