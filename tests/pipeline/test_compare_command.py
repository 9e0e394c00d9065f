"""`camlink compare` and `camlink simulate` as a user meets them."""

from __future__ import annotations

import csv
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from camlink.models.trace_arrays import open_arrays
from camlink.models.trace_writing import write_arrays
from camlink.operators.selection import Budget
from camlink.pipeline.cli import app
from camlink.pipeline.commands.console import note_console
from camlink.pipeline.commands.steps import plain_lines
from camlink.pipeline.errors import CamlinkError, ResultsError, TraceError
from camlink.pipeline.lab import compare as lab
from camlink.pipeline.lab.compare import Rules, Step, compare
from camlink.pipeline.lab.page import headline, render
from camlink.pipeline.lab.summary import as_csv, cells, tied, ties
from tests.lab_traces import random_trace

WANTED = {
    *("trace", "policy", "budget_gb", "budget_time", "agreement", "agreement_per_model", "cost"),
    *("executions_saved", "loads", "seed"),
}


def camlink(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160", "NO_COLOR": "1"}, catch_exceptions=True)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = random_trace(1, 80, 3)
    return write_arrays(tmp_path_factory.mktemp("traces") / "chance", made.models, made.cameras)


def test_json_is_a_list_of_rows_with_several_values_after_one_option(trace: Path) -> None:
    done = camlink("compare", "--policy", "periodic", "reducto", "--budget-time", "0.3", "0.6", "--json", str(trace))
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [(r["policy"], r["budget_time"]) for r in rows] == [
        ("periodic", 0.3), ("periodic", 0.6), ("reducto", 0.3), ("reducto", 0.6),
    ]  # fmt: skip
    assert all(set(row) >= WANTED and row["trace"] == "chance" and row["budget_gb"] is None for row in rows)


def test_a_folder_that_is_no_trace_is_refused_before_any_other_is_played(trace: Path, tmp_path: Path) -> None:
    done = camlink("compare", str(trace), str(tmp_path / "rows.json"), "--policy", "periodic")
    assert done.exit_code == 1 and isinstance(done.exception, TraceError) and done.output == ""
    assert "rows.json: no such trace folder" in str(done.exception)


def test_traces_in_folders_of_one_name_are_told_apart_and_one_given_twice_is_played_once(tmp_path: Path) -> None:
    for place, models in (("left", 2), ("right", 3)):
        made = random_trace(1, 80, models)
        write_arrays(tmp_path / place / "hall", made.models, made.cameras)
    left, right = str(tmp_path / "left" / "hall"), str(tmp_path / "right" / "hall")
    done = camlink("compare", left, right, left, "--policy", "periodic", "standalone", "--budget-time", "0.5")
    assert done.exit_code == 0, done.output
    titles = [line for line in done.stdout.splitlines() if "agreement (cost)" in line]
    assert [title.split(":")[0] for title in titles] == ["left/hall", "right/hall"]


def test_one_policy_alone_is_not_called_the_best(trace: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = camlink("compare", str(trace), "--policy", "periodic", "all", "--budget-time", "0.5", "--html", str(page))
    assert done.exit_code == 0 and "*" not in done.stdout and "best" not in done.stdout
    assert "in brackets: cost" in done.stdout and "Highest agreement" not in page.read_text()


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("--budget-time", "25", '"25" is no number above 0 and up to 1, nor "none" (for 25 per cent write 0.25)'),
        ("--budget-time", "25%", '"25%" is no number above 0 and up to 1, nor "none" (for 25 per cent write 0.25)'),
        ("--target", "90", '"90" is no number above 0 and up to 1 (for 90 per cent write 0.9)'),
        ("--target", "none", '"none" is no number above 0 and up to 1'),
        ("--budget-gb", "-1", '"-1" is no number above 0 and up to 1e+06, nor "none"'),
    ],
)
def test_a_number_that_is_none_is_refused_with_what_was_meant(trace: Path, option: str, text: str, said: str) -> None:
    done = camlink("compare", str(trace), option, text)
    assert done.exit_code == 2 and said in done.output


def test_memory_and_time_budgets_hold_together_and_alone(trace: Path) -> None:
    held = max(entry.memory_gb for entry in open_arrays(trace).models.values())
    both = ["--budget-gb", f"{held}", "none", "--budget-time", "0.5", "none"]
    done = camlink("compare", str(trace), "--policy", "standalone", *both, "--json")
    pairs = [(r["budget_gb"], r["budget_time"]) for r in json.loads(done.stdout)]
    assert pairs == [(held, 0.5), (held, None), (None, 0.5), (None, None)]


def test_a_memory_budget_that_all_models_fit_is_said_to_be_none_and_played_once(trace: Path, tmp_path: Path) -> None:
    both = ["--budget-gb", "64", "none", "100", "--budget-time", "0.5"]
    page = tmp_path / "page.html"
    done = camlink("compare", str(trace), "--policy", "standalone", "periodic", *both, "--json", "--html", str(page))
    assert [(r["policy"], r["budget_gb"]) for r in json.loads(done.stdout)] == [
        ("standalone", None),
        ("periodic", None),
    ]
    said = "a memory budget of 64 GB, 100 GB is the same as none; played and counted once"
    assert said in done.stderr and said in page.read_text()
    assert "in the one pair of trace and budget" in page.read_text()


def test_a_memory_budget_below_the_smallest_model_leaves_the_reference_as_it_is(trace: Path) -> None:
    done = camlink("compare", str(trace), "--policy", "all", "periodic", "--budget-gb", "0.001", "--json")
    assert done.exit_code == 0 and "is less than the smallest model of a camera takes; none executes" in done.stderr
    assert [row["cost"] for row in json.loads(done.stdout)] == pytest.approx([1.0, 0.0])


def test_each_trace_and_memory_budget_is_a_table_of_80_columns_whose_best_are_starred(trace: Path) -> None:
    held = max(entry.memory_gb for entry in open_arrays(trace).models.values())
    asked = ["compare", str(trace), "--budget-gb", f"{held}", "none", "--policy", "all", "standalone", "periodic"]
    times = ["--budget-time", "0.17", "0.25", "0.33", "0.5"]
    done = CliRunner().invoke(app, [*asked, *times], env={"COLUMNS": "80", "NO_COLOR": "1"})
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    heads = [line.split() for line in lines if line.strip().startswith("policy")]
    assert heads == [["policy", *" ".join(f"{share}% time" for share in (17, 25, 33, 50)).split()]] * 2
    assert [line for line in lines if "agreement (cost)" in line] == [
        f"chance, memory {held:g} GB: agreement (cost), in %", "chance: agreement (cost), in %",
    ]  # fmt: skip
    starred = [line for line in lines if re.search(r"\d\* \(", line)]
    assert starred and not any(line.strip().startswith("all") for line in starred)


def test_what_is_played_is_named_on_standard_error_where_there_is_no_terminal(trace: Path) -> None:
    done = camlink("compare", str(trace), "--policy", "standalone", "--budget-time", "0.5", "--json")
    assert "chance: standalone, 50% time (0 % of this trace done)" in done.stderr
    assert "standalone, 50%" not in done.stdout


def test_plain_lines_come_at_once_and_then_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter([0.0, 0.0, 0.0, 5.0, 12.0, 12.0])
    show = plain_lines(note_console(), lambda: next(clock))
    for done in (0, 25, 50):
        show(Step("t: camlink", done, 100))
    assert capsys.readouterr().err.splitlines() == [f"t: camlink ({share} % of this trace done)" for share in (0, 50)]


def test_steps_go_from_none_to_all_frames_of_all_policies_and_budgets() -> None:
    trace, steps = random_trace(1, 200, 2), list[Step]()
    rules = Rules([Budget(time_share=0.3), Budget(time_share=0.5)], ["standalone", "periodic"])
    results = list(compare(trace, rules, lambda said: None, steps.append))
    assert len(results) == 4 and {s.total for s in steps} == {800}
    done = [s.done for s in steps]
    assert done == sorted(done) and done[0] == 0 and {200, 400, 600} <= set(done) and 700 < done[-1] < 800


def test_ctrl_c_leaves_the_rows_that_are_done_and_says_so(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = []

    def play(*arguments: Any, **named: Any) -> Any:
        played.append(named["name"])
        if len(played) == 4:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    real = lab.play
    monkeypatch.setattr(lab, "play", play)
    page = tmp_path / "page.html"
    asked = ["compare", str(trace), "--policy", "standalone", "periodic", "--budget-time", "0.3", "0.6"]
    done = camlink(*asked, "--html", str(page))
    assert done.exit_code == 130 and "PARTIAL: stopped by Ctrl-C after 3 rows" in done.stderr
    assert re.search(r"standalone( +[\d.]+\*? +\(\d+\)){2}", done.stdout)
    assert re.search(r"periodic +[\d.]+\*? +\(\d+\) *\n", done.stdout), "one of its two budgets was played"
    text = page.read_text()
    assert "PARTIAL" in text and text.count('<td class="n"></td>') == 1


def test_the_table_shows_the_spread_over_seeds_and_files_are_written(trace: Path, tmp_path: Path) -> None:
    table, page = tmp_path / "rows.csv", tmp_path / "page.html"
    done = camlink(
        "compare", str(trace), "--policy", "drls", "--seed", "1", "2", "--budget-time", "0.4",
        "--csv", str(table), "--html", str(page),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert f"CSV: {table}" in done.stderr and f"page: {page}" in done.stderr
    assert re.search(r"drls\s+\d+\.\d(±\d\.\d)?  \(\d+\)", done.stdout)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["seed"] for row in rows] == ["1", "2"] and "agreement of m0" in rows[0]
    text = page.read_text()
    used, defined = (set(re.findall(pattern, text)) for pattern in (r"var\((--[\w-]+)", r"(--[\w-]+):"))
    assert used and used <= defined, "styles of the report that this page lacks"
    assert "Agreement over cost" in text and "drls" in text and "src=" not in text.split("</style>")[1][:5000]


def test_a_file_that_cannot_be_written_is_named_and_keeps_no_other_from_it(trace: Path, tmp_path: Path) -> None:
    table, page = tmp_path / "rows.csv", tmp_path / "page.html"
    (tmp_path / f".rows.csv.{os.getpid()}.tmp").mkdir()  # as good as a full disk
    asked = ("--policy", "standalone", "--budget-time", "0.4", "--csv", str(table), "--html", str(page))
    done = camlink("compare", str(trace), *asked)
    assert isinstance(done.exception, ResultsError)
    assert f"{table}: cannot be written: Is a directory" in str(done.exception)
    assert page.is_file() and not table.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--budget-time", "1.5"], '"1.5" is no number above 0 and up to 1'),
        (["--budget-gb", "many"], '"many" is no number above 0'),
        (["--policy", "mlnk"], 'unknown policy "mlnk"; did you mean'),
        (["--period", "1 hour"], 'did you mean "1h"'),
    ],
)
def test_a_wrong_option_is_refused_and_says_why(trace: Path, arguments: list[str], said: str) -> None:
    done = camlink("compare", str(trace), *arguments)
    assert done.exit_code == 2 and said in re.sub(r"[\s│]+", " ", done.output)


def test_many_periods_are_drawn_as_means_of_neighbours() -> None:
    from camlink.pipeline.lab.page import MOST_POINTS, segments
    from camlink.pipeline.lab.summary import Cell

    values = [0.0, 1.0] * MOST_POINTS
    cell = Cell("t", "mlink", "33% time", 0.5, 0.0, 0.3, {}, values, {})
    figure = segments([cell], {"mlink": 0})
    assert figure["data"][0]["y"] == [50.0] * MOST_POINTS and figure["data"][0]["x"][:2] == [1, 3]
    assert figure["layout"]["xaxis"]["title"]["text"] == "period (each point: the mean of 2)"
    assert figure["layout"]["xaxis"]["dtick"] == 8
    few = segments([replace(cell, per_period=values[:2])], {"mlink": 0})
    assert few["layout"]["xaxis"]["dtick"] == 1, "there are no halves of periods"


def test_a_folder_called_like_a_policy_is_no_trace(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "periodic").mkdir()
    monkeypatch.chdir(tmp_path)
    done = camlink("compare", "--policy", "standalone", "periodic", str(trace), "--budget-time", "0.5", "--json")
    assert [row["policy"] for row in json.loads(done.stdout)] == ["standalone", "periodic"]


def test_detectors_are_judged_by_their_boxes_when_asked(tmp_path: Path) -> None:
    folder = tmp_path / "boxed"
    folder.mkdir()
    (folder / "trace.yaml").write_text("models: {m: {size: 1, task: count, time_ms: 10, memory_gb: 1}}\n")
    moments = [f"2026-01-01T00:00:{i:02d}+00:00" for i in range(40)]
    frames = [f"c,{i},{at}" for i, at in enumerate(moments)]
    outputs = [f'c,{i},m,[1],"[[{i}, 0, {i + 10}, 10, 0.9, 0]]"' for i in range(40)]  # one box, on its way
    (folder / "frames.csv").write_text("\n".join(["camera_id,frame_index,captured_at", *frames]))
    (folder / "outputs.csv").write_text("\n".join(["camera_id,frame_index,model,value,detections", *outputs]))
    asked = ["compare", str(folder), "--policy", "standalone", "--budget-time", "0.1", "--json"]
    counts, boxes = (json.loads(camlink(*asked, *more).stdout)[0] for more in ([], ["--boxes"]))
    assert counts["agreement"] == 1.0
    assert 0.3 < boxes["agreement"] < 0.6  # of ten frames, a box stays half in place for four


def test_a_folder_that_is_no_trace_is_named(tmp_path: Path) -> None:
    done = camlink("compare", str(tmp_path / "nowhere"))
    assert isinstance(done.exception, CamlinkError) and "no such trace folder" in str(done.exception)


def test_names_in_a_page_are_escaped(tmp_path: Path) -> None:
    made = random_trace(1, 40, 2)
    row = {
        "trace": "<b>evil</b>", "policy": "<img src=x>", "budget_gb": None, "budget_time": 0.5, "seed": 0,
        "agreement": 0.5, "cost": 0.5, "agreement_per_model": dict.fromkeys(made.models, 0.5), "frames": 36,
        "per_camera": {"cam": 0.5}, "per_period": [0.5],
    }  # fmt: skip
    page = render([row])
    assert "<b>evil" not in page and "<img" not in page


def test_references_win_nothing_and_equal_seeds_spread_nothing() -> None:
    def row(policy: str, agreement: float, seed: int) -> dict[str, object]:
        return {
            "trace": "t", "policy": policy, "budget_gb": None, "budget_time": 0.5, "seed": seed, "cost": 0.5,
            "agreement": agreement, "agreement_per_model": {"m": agreement}, "per_camera": {},
            "per_period": [agreement],
        }  # fmt: skip

    rows = [row("all", 1.0, 0), row("oracle", 0.9, 0), row("a", 0.7, 0), row("a", 0.9, 1), row("b", 0.65, 0)]
    found = {c.policy: c for c in cells(rows)}
    assert (found["a"].agreement, round(found["a"].spread, 9), found["b"].spread) == (0.8, 0.1, 0.0)
    assert [[c.policy for c in place] for place in tied(list(found.values()))] == [["a"]]
    assert {p: ties(c, found["a"]) for p, c in found.items()} == {"all": False, "oracle": False, "a": True, "b": False}
    assert as_csv(rows).splitlines()[0].startswith("trace,policy,budget_gb")


def test_all_that_tie_are_named_and_one_that_is_ahead_by_more_than_the_spread_is_alone() -> None:
    def row(trace: str, policy: str, agreement: float, seed: int = 0) -> dict[str, object]:
        return {
            "trace": trace, "policy": policy, "budget_gb": None, "budget_time": 0.5, "seed": seed, "cost": 0.5,
            "agreement": agreement, "agreement_per_model": {"m": agreement}, "per_camera": {}, "frames": 36,
            "per_period": [agreement],
        }  # fmt: skip

    rows = [row("even", "first", 0.9), row("even", "second", 0.9), row("even", "third", 0.89)]
    rows += [row("spread", "first", 0.9), row("spread", "second", 0.86, 0), row("spread", "second", 0.92, 1)]
    rows += [row("clear", "first", 0.9), row("clear", "second", 0.8), row("clear", "oracle", 1.0)]
    wins = "first 3 (1 alone), second 2 (0 alone)"
    said = f"Highest agreement in 3 pairs of trace and budget, counting all that tie: {wins}."
    assert headline(cells(rows)) == said
    page = render(rows)
    assert said in page and page.count("<b>90.0</b>") == 4 and "<b>89.0</b> ± 3.0" in page


def test_boxes_are_called_mean_average_precision_everywhere(tmp_path: Path) -> None:
    folder = tmp_path / "boxed"
    folder.mkdir()
    facts = "time_ms: 10, memory_gb: 1}"
    models = f"m: {{size: 1, task: count, {facts}, w: {{size: 2, task: single_label, {facts}"
    (folder / "trace.yaml").write_text(f"models: {{{models}}}\n")
    frames = [f"c,{i},2026-01-01T00:00:{i:02d}+00:00" for i in range(40)]
    outputs = [f'c,{i},m,[1],"[[{i}, 0, {i + 10}, 10, 0.9, 0]]"' for i in range(40)]
    outputs += [f'c,{i},w,"[1, 0]",' for i in range(40)]
    (folder / "frames.csv").write_text("\n".join(["camera_id,frame_index,captured_at", *frames]))
    (folder / "outputs.csv").write_text("\n".join(["camera_id,frame_index,model,value,detections", *outputs]))
    asked = ["compare", str(folder), "--policy", "periodic", "--budget-time", "0.3"]
    table, page = tmp_path / "rows.csv", tmp_path / "page.html"
    done = camlink(*asked, "--boxes", "--csv", str(table), "--html", str(page))
    assert done.exit_code == 0, (done.output, done.exception)
    shown = done.stdout
    mixed = "mean average precision of boxes (m) and agreement (w)"
    assert "mAP and agreement (cost), in %" in shown and mixed in re.sub(r"\s+", " ", shown)
    row = json.loads(camlink(*asked, "--boxes", "--json").stdout)[0]
    assert row["measure_per_model"] == {"m": "mean average precision of boxes", "w": "agreement"}
    (line,) = csv.DictReader(table.read_text().splitlines())
    assert "mean average precision of boxes of m" in line and "agreement of w" in line and line["measure"] == mixed
    text = page.read_text()
    assert mixed in text and "m<br>mAP" in text and "w<br>agreement" in text and "mAP and agreement, %" in text
    plain = camlink(*asked).stdout
    assert "agreement (cost), in %" in plain and "mAP" not in plain


def test_camlink_looks_alike_on_every_page_and_stands_out() -> None:
    from camlink.pipeline.lab.page import segments
    from camlink.pipeline.lab.summary import Cell

    def lines(*policies: str) -> dict[str, dict[str, Any]]:
        found = [Cell("t", policy, "33% time", 0.5, 0.0, 0.3, {}, [0.5], {}) for policy in policies]
        place = {policy: i for i, policy in enumerate(p for p in policies if p != "camlink")}
        return {line["name"]: line for line in segments(found, place)["data"]}

    alone, among = lines("camlink"), lines("periodic", "mlink", "camlink", "oracle")
    looks = ("line", "marker", "zorder")
    assert [alone["camlink"][look] for look in looks] == [among["camlink"][look] for look in looks]
    others = [line for name, line in among.items() if name != "camlink"]
    assert len({line["line"]["color"] for line in among.values()}) == 4
    assert all(line["line"]["width"] < alone["camlink"]["line"]["width"] for line in others)


def test_what_is_made_of_a_simulated_trace_says_so_everywhere_and_is_no_part_of_the_headline(
    trace: Path, tmp_path: Path
) -> None:
    city, page = tmp_path / "city", tmp_path / "page.html"
    camlink("simulate", str(city), "--cameras", "1", "--days", "0.02", "--every", "1min")
    asked = ["compare", str(city), str(trace), "--policy", "standalone", "periodic", "--budget-time", "0.4"]
    done = camlink(*asked, "--html", str(page))
    assert "city (SYNTHETIC): agreement" in done.stdout and "chance: agreement" in done.stdout
    assert "city (SYNTHETIC): least cost" in camlink(*asked[:-2], "--target", "0.5").stdout
    assert [row["synthetic"] for row in json.loads(camlink(*asked, "--json").stdout)] == [True, True, False, False]
    text = page.read_text()
    assert "SYNTHETIC:</b> city. No camera has seen this" in text and ">city (SYNTHETIC)</h2>" in text
    assert "in the one pair of trace and budget" in text and "of the other traces" in text
    camlink(*asked[:1], *asked[2:], "--html", str(page))
    assert "SYNTHETIC" not in page.read_text()
    first_line, *rest = (city / "trace.yaml").read_text().splitlines(keepends=True)
    (city / "trace.yaml").write_text("".join(rest))
    assert open_arrays(city).synthetic
    (city / "trace.yaml").write_text("".join([first_line, *rest[1:]]))
    assert open_arrays(city).synthetic, "as the first simulated traces are labelled"
