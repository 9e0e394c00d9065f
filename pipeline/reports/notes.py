"""What the figures mean in plain words, also when the news is bad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from camlink.pipeline.quantities import counted
from camlink.pipeline.reports.certificates import deciding
from camlink.pipeline.reports.spending import failed_sentence, learning_sentence, over_spent, overtaken_in

BASELINE_WORDS = {
    "constant": "always answering the most common value",
    "hourly_mode": "answering the most common value of the hour",
    "persistence": "repeating the last executed value",
}
FEW_FRAMES = 30
LEAST_AUDITS = 5  # below these no headline gives a figure
MOST_NAMED = 3  # in a sentence
ALWAYS = "always executed"  # a model that nothing was predicted of has nothing to prove
ANYTIME, ONE_LOOK = "95 %, at any time", "95 % interval"  # what an interval is (docs/accuracy.md)
OWN = "Every output was a model's own, so that there was nothing to compare."
SYNTHETIC = "SYNTHETIC: a simulated trace, no camera has seen this."
ON_PACE = 1.1  # up to here, measured and profiled time are alike
OFF_PACE = 1.5  # from here on, more is to blame than that models are profiled alone


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as people read it.

    >>> percent(0.9312), percent(None)
    ('93.1 %', 'not measured')
    """
    return "not measured" if share is None else f"{100.0 * share:.{digits}f} %"


def some_percent(share: float) -> str:
    """Return a share that is above nothing, so that rounding never makes it look like nothing.

    >>> some_percent(0.0001), some_percent(0.25)
    ('less than 0.1 %', '25.0 %')
    """
    return percent(share) if share >= 0.001 else "less than 0.1 %"


def interval(figure: Mapping[str, Any]) -> str:
    """Return the 95 % interval of an agreement figure, in per cent.

    >>> interval({"low": 0.902, "high": 0.953})
    '90.2 – 95.3 %'
    """
    return f"{100.0 * figure['low']:.1f} – {100.0 * figure['high']:.1f} %"


def looks(complete: bool) -> str:
    """Return what the intervals in a run's report are; those of days and targets hold at any time."""
    return ONE_LOOK if complete else ANYTIME


def points(lead: Mapping[str, float]) -> str:
    """Return the interval of a lead, in percentage points.

    >>> points({"low": -0.012, "high": 0.034})
    '-1.2 to +3.4 points'
    """
    return f"{100.0 * lead['low']:+.1f} to {100.0 * lead['high']:+.1f} points"


def too_few(audits: int) -> str:
    """Say that so many audit frames measure nothing; empty where they are enough for a headline.

    >>> too_few(1), too_few(LEAST_AUDITS)
    ('1 audit frame is too few', '')
    """
    are = "is" if audits == 1 else "are"
    return "" if audits >= LEAST_AUDITS else f"{counted(audits, 'audit frame')} {are} too few"


def is_told(figure: Mapping[str, Any]) -> bool:
    """Say whether an agreement rests on audit frames enough to be stated by itself, without its interval."""
    return figure["mean"] is not None and not too_few(figure["audit_frames"])


def best_baseline(figure: Mapping[str, Any]) -> tuple[str, float]:
    """Return the baseline that agrees most, and its agreement."""
    name = max(figure["baselines"], key=lambda baseline: figure["baselines"][baseline])
    return name, figure["baselines"][name]


def whole_words(found: Mapping[str, Any] | None) -> str:
    """Say on how many audit frames the whole answer was right; empty where an answer is one entry, or for none.

    >>> whole_words({"frames": 10, "right": 5, "baselines": {"constant": 2, "persistence": 6}})
    'Whole answer right on 5 of 10 audit frames; the best baseline on 6.'
    """
    if found is None:
        return ""
    best = max(found["baselines"].values())
    frames = counted(found["frames"], "audit frame")
    return f"Whole answer right on {found['right']:,} of {frames}; the best baseline on {best:,}."


def note(model: str, agreement: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, str]:
    """Judge a model's outputs in a ``verdict`` for colours and a ``text`` to read.

    ``outputs`` counts served ones: ``served``, ``predicted``, ``abstained``, ``nothing_fits`` (abstained while no model
    fitted the budget), with the ``usual_reason`` for abstaining. Verdicts: ``unmeasured``, ``unpredicted``, ``few``,
    ``better``, ``similar``, ``worse`` than the best baseline; of a model that mostly gives no answer, ``budget`` when
    no model fits the budget, else ``abstained``.
    """
    silence = " ".join(filter(None, (abstentions(outputs, agreement["abstained"]), answers(agreement))))
    if 2 * outputs["abstained"] > outputs["served"]:
        return _mostly_silent(model, outputs, silence)
    judged = _judged(model, agreement, outputs)
    return {**judged, "text": " ".join(filter(None, (judged["text"], silence)))}


def abstentions(outputs: Mapping[str, Any], audit_frames: int) -> str:
    """Return how often no answer was given, as a sentence; empty when there always was one.

    >>> abstentions({"abstained": 90, "served": 120}, 3)
    'Abstained on 90 of 120 outputs (75.0 %); abstained on 3 audit frames, which counts as wrong.'
    """
    if not outputs["abstained"] and not audit_frames:
        return ""
    of = f"{outputs['abstained']:,} of {outputs['served']:,} outputs"
    share = percent(outputs["abstained"] / outputs["served"]) if outputs["served"] else "none served"
    frames = f"{counted(audit_frames, 'audit frame')}, which counts as wrong"
    return f"Abstained on {of} ({share})" + (f"; abstained on {frames}." if audit_frames else ".")


def answers(agreement: Mapping[str, Any]) -> str:
    """Say how far the answers are right where others were not given; empty where all were.

    >>> figure = {"mean": 0.97, "low": 0.9, "high": 0.99, "audit_frames": 80}
    >>> answers({"answers_only": figure})
    'Where it answered without executing, 97.0 % agreed (90.0 – 99.0 %, 80 audit frames).'
    """
    figure = agreement["answers_only"]
    if figure is None or figure["mean"] is None:
        return ""
    frames = counted(figure["audit_frames"], "audit frame")
    return f"Where it answered without executing, {percent(figure['mean'])} agreed ({interval(figure)}, {frames})."


def _mostly_silent(model: str, outputs: Mapping[str, Any], silence: str) -> dict[str, str]:
    if 2 * outputs["nothing_fits"] > outputs["abstained"]:
        text = f"Budget too small: no model fits it, so {model} was neither executed nor predicted."
        return {"verdict": "budget", "text": f"{text} {silence}"}
    reason = f" Usual reason: {outputs['usual_reason']}." if outputs["usual_reason"] else ""
    return {"verdict": "abstained", "text": f"Mostly no answer. {silence}{reason}"}


def _judged(model: str, agreement: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, str]:
    figure = agreement["answers_only"] or agreement["predicted_only"]
    if agreement["mean"] is None:
        return {"verdict": "unmeasured", "text": f"Not measured: no audit frames with {model}."}
    if figure["mean"] is None and outputs["predicted"]:
        return {"verdict": "unmeasured", "text": "Not measured: predicted, but on no audit frame."}
    if figure["mean"] is None:
        always = "Nothing was predicted." if outputs["abstained"] else "Executed throughout; nothing was predicted."
        return {"verdict": "unpredicted", "text": always}
    return against_baselines(model, figure)


def against_baselines(model: str, figure: Mapping[str, Any]) -> dict[str, str]:
    """Judge predictions of a model by their best baseline; report and dashboard judge by this alone.

    ``figure``: ``mean``, ``audit_frames``, and per baseline ``baselines`` and ``leads`` (frame by frame). Verdicts:
    ``few``, ``better``, ``similar``, ``worse``.
    """
    name, baseline = best_baseline(figure)
    lead = figure["leads"][name]
    figures = f"({percent(baseline)} against {percent(figure['mean'])})"
    words = BASELINE_WORDS[name]
    if figure["audit_frames"] < FEW_FRAMES:
        return {"verdict": "few", "text": f"Only {counted(figure['audit_frames'], 'audit frame')}: too few to judge."}
    if lead["high"] < 0.0:
        text = f"{words.capitalize()} does better here {figures}: predictions of {model} are not worth using."
        return {"verdict": "worse", "text": text}
    if percent(baseline) == percent(figure["mean"]):
        return {"verdict": "similar", "text": f"No better than {words} ({percent(baseline)} both)."}
    if baseline > figure["mean"]:
        text = f"{words.capitalize()} does as well or better here {figures}: predicting {model} shows no gain."
        return {"verdict": "similar", "text": text}
    if lead["low"] <= 0.0:
        text = f"Ahead of {words} {figures}, but frame by frame the gain may be chance ({points(lead)})."
        return {"verdict": "similar", "text": text}
    text = f"Predictions beat {words}, the best baseline {figures}, by {points(lead)} frame by frame."
    return {"verdict": "better", "text": text}


def ending(report: Mapping[str, Any]) -> dict[str, str] | None:
    """Say how a run ended, unless it came to its own end: ``kind`` is ``stopped``, ``failed`` or ``going_on``.

    Stopping is how every live run ends, so it is no warning.
    """
    run, frames = report["run"], report["frames"]
    count = counted(frames["captured"], "frame")
    if run["finished_at"] is None:
        waiting = frames["in_flight"]
        flight = f", up to {waiting:,} of a camera still on their way" if waiting else ""
        if run["stopped_by"]:
            return {
                "kind": "stopped",
                "text": f"Its results were stopped by {run['stopped_by']} after {count}{flight}.",
            }
        return {"kind": "going_on", "text": f"Still running, or killed: {count} read so far{flight}."}
    if run["complete"]:
        return None
    if run["stopped_by"] == "the user":
        return {"kind": "stopped", "text": f"Stopped by the user after {count}."}
    cause = run["stopped_by"] or "something unknown"
    return {"kind": "failed", "text": f"Ended early by {cause} after {count}: the figures cover what was done."}


def executed_words(decision: Mapping[str, Any]) -> str:
    """Say what a decision executes, also where a policy decides anew on every frame.

    >>> executed_words({"execute": ["persons"], "per_frame": False})
    'persons executed.'
    >>> executed_words({"execute": ["persons"], "per_frame": True})
    'Chosen frame by frame; persons always executed.'
    """
    named = ", ".join(decision["execute"])
    if decision.get("per_frame"):
        return f"Chosen frame by frame; {named} always executed." if named else "Chosen frame by frame."
    return f"{named or 'Nothing'} executed."


def promise(expected: float, measured: Mapping[str, Any], looked: str) -> str:
    """Set the agreement that decisions expected beside the measured one, so that promising too much is seen.

    >>> promise(0.95, {"mean": 0.8, "low": 0.7, "high": 0.9}, ONE_LOOK)
    'The decisions expected 95.0 %, measured were 80.0 % (95 % interval: 70.0 – 90.0 %): they promised too much.'
    """
    if measured["mean"] is None:
        return f"The decisions expected {percent(expected)}; it was not measured."
    found = f"{percent(measured['mean'])} ({looked}: {interval(measured)})"
    both = f"The decisions expected {percent(expected)}, measured were {found}"
    if expected > measured["high"]:
        return f"{both}: they promised too much."
    return f"{both}: better than promised." if expected < measured["low"] else f"{both}: within the interval."


def pace(cost: Mapping[str, Any]) -> str | None:
    """Say how long the models really took, and plainly when that is not what their profiled costs promise.

    >>> pace({"measured_busy_s": 96.7, "measured_ratio": 2.1})
    'In this run they took 97 s, 2.1 times as long: the machine was busy.'
    """
    took, ratio = cost["measured_busy_s"], cost["measured_ratio"]
    if took < 1.0 or ratio is None:
        return None
    told = f"In this run they took {took:,.0f} s"
    if ratio > OFF_PACE:
        return f"{told}, {ratio:.1f} times as long: the machine was busy."
    if ratio > ON_PACE:
        return (
            f"{told}, {ratio:.1f} times as long: a model is measured with the machine to itself, and here it was not."
        )
    if ratio < 1.0 / OFF_PACE:
        return f"{told}: it was {1 / ratio:.1f} times as fast as the profile."
    return f"{told}."


def headline(report: Mapping[str, Any]) -> str:
    """Say what was saved, what was lost or stayed unanswered, at what agreement, and what was asked for but missed.

    Of a simulated trace it says so before all else.
    """
    return " ".join(filter(None, (SYNTHETIC if report["run"]["synthetic"] else "", _happened(report))))


def run_words(name: str, *, synthetic: bool) -> str:
    """Return a run's name as reports show it, labelled where no camera has seen what was replayed."""
    return f"{name} (SYNTHETIC)" if synthetic else name


def _happened(report: Mapping[str, Any]) -> str:
    made = report["executions"]
    saved, lost = made["saved_share_without_drops"], dropped_sentence(report["frames"])
    if saved is None:
        return " ".join(filter(None, (lost, "No frame reached the models, so there is nothing to report.")))
    first = (
        f"camlink made {made['made']:,} of {made['possible_without_drops']:,} possible model executions "
        f"({percent(saved)} saved)."
    )
    failed = failed_sentence((name, model["executions"]) for name, model in report["models"].items())
    if learning := learning_sentence(report):
        return " ".join(filter(None, (learning, failed, lost, *missed(report))))
    abstained = report["abstentions"]
    silence = f"It gave no answer to {some_percent(abstained['share'])} of outputs." if abstained["served"] else ""
    guessed = any(report["frames"][how] for how in ("linked", "reused", "abstained"))
    told = (
        first,
        failed,
        lost,
        overtaken_in(report["cost"]["parts"]),
        silence,
        _agreement_sentence(report["agreement"], looks(report["run"]["complete"])) if guessed else OWN,
        *missed(report),
    )
    return " ".join(filter(None, told))


def dropped_sentence(frames: Mapping[str, Any]) -> str:
    """Say how many frames no model ever saw, and why; empty where there was none.

    >>> dropped_sentence({"captured": 1000, "dropped": {"overload": 880, "corrupt": 20}})
    '900 of 1,000 frames (90.0 %) were dropped before any model saw them: 880 overload, 20 corrupt.'
    """
    lost = sum(frames["dropped"].values())
    if not lost:
        return ""
    why = ", ".join(f"{count:,} {reason}" for reason, count in sorted(frames["dropped"].items(), key=lambda d: -d[1]))
    share = some_percent(lost / frames["captured"]) if frames["captured"] else "all"
    were = "was" if lost == 1 else "were"
    return (
        f"{lost:,} of {counted(frames['captured'], 'frame')} ({share}) {were} dropped before any model saw them: {why}."
    )


def missed(report: Mapping[str, Any]) -> list[str]:
    """Say, in a sentence each, which targets and which budget were missed."""
    cost = report["cost"]
    asked, served = cost["time_budget"], cost["parts"]["serve"]["share"]
    told = [missed_targets(last_targets(report))]
    if over_spent(asked, served):
        told.append(f"Time budget over-spent: {percent(served)} on served frames instead of {percent(asked)}.")
    return [text for text in told if text]


def missed_targets(certificates: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Name those of some cameras' certificates whose target is not met, the first ones; empty where there is none."""
    found = [
        f"{entry['model']} on {camera} on {entry['day']} "
        f"({percent(entry['estimate'])} instead of {percent(entry['target'])})"
        for camera, entry in certificates
        if entry["target_state"] == "not met"
    ]
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return f"Target missed: {', '.join(found[:MOST_NAMED])}{more}." if found else ""


def last_targets(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return camera and certificate of each model with a target, of the day that says how it stands (`deciding`)."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for camera, told in report["cameras"].items():
        days: dict[str, list[dict[str, Any]]] = {}
        for entry in told["certificates"]:
            if entry["target"] is not None:
                days.setdefault(entry["model"], []).append(entry)
        found += [(camera, entry) for entries in days.values() if (entry := deciding(entries)) is not None]
    return found


def standing(entry: Mapping[str, Any]) -> str:
    """Return in words how a certificate stands towards its target.

    >>> standing({"frames": 0, "target_state": "not known"})
    'always executed'
    """
    return ALWAYS if not entry["frames"] and entry["target_state"] == "not known" else str(entry["target_state"])


def _agreement_sentence(agreement: Mapping[str, Any], looked: str) -> str:
    if agreement["mean"] is None:
        return "Agreement was not measured: the run has no audit frames."
    if few := too_few(agreement["audit_frames"]):
        return f"Agreement was not measured: {few}."
    name, baseline = best_baseline(agreement)
    measured = (
        f"Its outputs agreed with the models' own to {percent(agreement['mean'])} "
        f"({looked}: {interval(agreement)}; {counted(agreement['audit_frames'], 'audit frame')})"
    )
    if answered := answers(agreement):  # a baseline always answers: it is held against answers alone
        name, baseline = best_baseline(agreement["answers_only"])
        beside = f"{BASELINE_WORDS[name]}, the best baseline, gives {percent(baseline)} there"
        few = agreement["answers_only"]["audit_frames"] < FEW_FRAMES
        judged = ": too few audit frames to judge" if few else ""
        return f"{measured}, no answer counting as wrong. {answered[:-1]}; {beside}{judged}."
    words, given = BASELINE_WORDS[name], percent(baseline)
    if agreement["audit_frames"] < FEW_FRAMES:
        return f"{measured}; the best baseline, {words}, gives {given}: too few audit frames to judge."
    lead = agreement["leads"][name]
    if lead["high"] < 0.0:
        return f"{measured}; {words} would have done better, at {given}."
    if lead["low"] > 0.0:
        return f"{measured}; {words}, the best baseline, would have given {given}."
    return f"{measured}; the best baseline, {words}, gives {given}: no difference that so many frames can show."
