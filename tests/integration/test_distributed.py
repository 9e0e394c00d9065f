"""The whole site as processes, over a real broker and a real Redis: the rows of one process, whatever is killed."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml
from kafka import KafkaProducer

from camlink.models.pool import ModelPool
from camlink.models.recorded import open_trace
from camlink.pipeline.bus.base import Bus, open_bus
from camlink.pipeline.bus.kafka_topics import CLIENTS, KafkaAddress
from camlink.pipeline.codec import decode, encode
from camlink.pipeline.config import load_config
from camlink.pipeline.footage import rate_of
from camlink.pipeline.records import Frame
from camlink.pipeline.results import RunResults
from camlink.pipeline.session import Camera, Session
from tests.integration.processes import PATIENCE_S, STEPS, Processes

pytestmark = [pytest.mark.broker, pytest.mark.slow]

FRAMES = 260
CAMERAS = ("hall", "yard", "roof", "door")
SITES = count()


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of three models on four cameras, such that links can know much of two of them."""
    folder = tmp_path_factory.mktemp("trace")
    described = {
        name: {"kind": "vector", "size": size, "task": "count", "time_ms": 30.0, "memory_gb": 1.0}
        for name, size in {"objects": 2, "persons": 1, "bags": 1}.items()
    }
    (folder / "trace.yaml").write_text(yaml.safe_dump({"models": described}, sort_keys=False))
    frames, rows = ["camera_id,frame_index,captured_at,pixel_change,edge_density,mean_luma"], []
    for index in range(FRAMES):
        for place, camera in enumerate(CAMERAS):
            people = (index * 7 // 20 + place) % 6
            frames.append(
                f"{camera},{index},2026-01-05T08:{index // 60:02}:{index % 60:02}.{place}00000+00:00,0.1,0.2,90"
            )
            bags = people * 2 if index > 120 else people // 2
            values = {"objects": f"[{people}, {index % 2}]", "persons": f"[{people}]", "bags": f"[{bags}]"}
            boxes = {"persons": [[0.1 * n, 0.2, 0.1 * n + 0.05, 0.9, 0.95 - 0.1 * n, 0] for n in range(people + 1)]}
            rows += [f'{camera},{index},{model},"{value}","{boxes.get(model, "")}"' for model, value in values.items()]
    (folder / "frames.csv").write_text("\n".join(frames) + "\n")
    (folder / "outputs.csv").write_text("\n".join(["camera_id,frame_index,model,value,detections", *rows]) + "\n")
    return folder


SETTINGS: dict[str, Any] = {
    "site": "test",
    "models": "building",
    "period": "2min",
    "policy": "mlink-exact",
    "budgets": {"time_share": 0.4},
    "links": {"bootstrap_frames": 40, "min_train_frames": 40},
    "audit": {"fraction": 0.1},
    "adaptation": {
        **{"policy": "periodic", "interval": "30s", "frames": 5},
        **{"retrain_after_frames": 20, "shadow_frames": 8},
    },
}


def write_config(folder: Path, **changes: Any) -> Path:
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump({**SETTINGS, **changes}))
    return path


@pytest.fixture
def urls(request: pytest.FixtureRequest, broker_address: str, redis_url: str) -> tuple[str, str]:
    """A broker's site, and a database of Redis, that no other test uses; the client may be asked for."""
    number, client = next(SITES), getattr(request, "param", CLIENTS[0])
    told = f"partitions=4&wait_ms=5&client={client}"
    return f"kafka://{broker_address}/dist{number}?{told}", f"{redis_url}/{number + 1}"


with_either_client = pytest.mark.parametrize("urls", CLIENTS, indirect=True)


@pytest.fixture(scope="module")
def alone_out(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder that one process leaves of the trace."""
    folder = tmp_path_factory.mktemp("alone")
    config = load_config(write_config(folder))
    recorded = open_trace(trace)
    frames = sorted(recorded.frames, key=lambda frame: (frame.captured_at, frame.camera_id))
    cameras = {camera: Camera("trace", "trace", rate) for camera, rate in rate_of(frames).items()}
    run_alone(config, ModelPool(recorded.models), cameras, frames, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def alone(alone_out: Path) -> list[dict[str, Any]]:
    """The rows that one process gives on the trace."""
    rows: list[dict[str, Any]] = RunResults(alone_out).outputs().to_pylist()
    return rows


def run_alone(
    config: Any, pool: ModelPool, cameras: dict[str, Camera], frames: Sequence[Frame], out: Path
) -> list[dict[str, Any]]:
    session = Session(config, pool, cameras, out, tick=len(cameras))
    session.run(frames, lambda: dict.fromkeys(cameras, len(frames) // len(cameras)))
    rows: list[dict[str, Any]] = RunResults(out).outputs().to_pylist()
    return rows


def facts(rows: Iterable[dict[str, Any]]) -> Counter[str]:
    return Counter(repr(sorted(row.items())) for row in rows)


def options(step: str, trace: Path) -> tuple[str, ...]:
    return {"inference": ("--trace", str(trace)), "results": ("--flush-s", "0.5")}.get(step, ())


def answered(lines: Path) -> dict[tuple[str, int, str], list[float]]:
    """Return what was told to other programs; a model without labels tells its value as a list."""
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    return {(t["camera_id"], t["frame_index"], model): a["value"] for t in told for model, a in t["answers"].items()}


@with_either_client
def test_the_rows_are_those_of_one_process_even_with_garbage_on_the_topics(
    trace: Path, alone: list[dict[str, Any]], alone_out: Path, urls: tuple[str, str], tmp_path: Path
) -> None:
    with Processes(tmp_path, write_config(tmp_path), *urls, hold_s=PATIENCE_S) as site:
        for step in STEPS:
            told = ("--answers", str(tmp_path / "answers.jsonl")) if step == "results" else ()
            site.start(step, *options(step, trace), *told)
        site.wait_until_joined()
        throw_garbage(urls[0], encode(open_trace(trace).frames[0], "a-rogue"))
        site.start("ingest", "--trace", str(trace))
        site.finish("ingest")
        site.wait_for(lambda: site.frames_done() == FRAMES * len(CAMERAS), "all frames served")
        for step in STEPS:
            site.stop(step)
        assert facts(site.rows()) == facts(alone)
        boxes = RunResults(alone_out).boxes()
        assert boxes.num_rows and RunResults(site.out).boxes().equals(boxes)
        assert answered(tmp_path / "answers.jsonl") == {
            (row["camera_id"], row["frame_index"], row["model"]): row["value"] for row in alone if row["served"]
        }
        logged = site.log("inference") + site.log("linking")
        assert logged.count('record from "a-rogue" refused: truncated') == 4
        assert logged.count("no camlink record") == 4
    assert {row["how"] for row in alone} == {"executed", "linked"}
    assert len({row["link_version"] for row in alone}) > 2, "no promotion in mid-stream: this would show little"


def test_an_alert_on_a_predicted_value_is_confirmed_by_a_worker_that_executes_it(
    trace: Path, urls: tuple[str, str], tmp_path: Path
) -> None:
    frames = [frame for frame in open_trace(trace).frames if frame.camera_id == "hall"]
    fast, paced = frames[:200], frames[200:240]
    rule = {"when": "count_above", "above": 0, "lasting": "1s", "cool_down": "1s", "confirm": True}
    rules = [{"name": model, "model": model, **rule} for model in ("objects", "persons")]  # one of them is predicted
    with webhook() as (address, told):
        config = write_config(tmp_path, alerts={"to": [address], "rules": rules})
        with Processes(tmp_path, config, *urls, hold_s=PATIENCE_S) as site:
            for step in STEPS:
                site.start(step, *options(step, trace))
            site.wait_until_joined()
            with closing(open_bus(urls[0])) as bus:
                publish(bus, fast)
                site.wait_for(lambda: site.frames_done() == len(fast), "what links are learnt from")

                def confirmed() -> list[dict[str, Any]]:
                    since = paced[0].captured_at.isoformat()
                    return [t for t in told if t["confirmed"] == "by execution" and t["at"] >= since]

                for number, frame in enumerate(paced, len(fast) + 1):  # as a live camera gives them: one by one
                    publish(bus, [frame])
                    site.wait_for(lambda number=number: site.frames_done() == number, "a frame")  # type: ignore[misc]
                    if confirmed():
                        break
                site.wait_for(lambda: bool(confirmed()), "an alert that was confirmed")
            (first, *_) = confirmed()
            assert first["how"] == "executed" and first["predicted_frames"] > 0 and first["value"] > 0
            executed = [r for r in site.rows() if (r["purpose"], r["model"]) == ("relabel", first["model"])]
            assert first["at"] in {row["captured_at"].isoformat() for row in executed if row["how"] == "executed"}


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A place on this machine that takes alerts: its address, and what it was told."""
    told: list[dict[str, Any]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/alerts", told
        server.shutdown()
        thread.join()


def publish(bus: Bus, frames: Sequence[Frame]) -> None:
    for frame in frames:
        bus.publish("frames", frame)
    bus.flush()


def throw_garbage(url: str, whole: bytes) -> None:
    """Put a truncated record, and what is none, on every partition of two topics."""
    address = KafkaAddress.parse(url)
    producer = KafkaProducer(bootstrap_servers=list(address.servers))
    for partition in range(4):
        producer.send(address.topic("frames"), whole[:-3], key=b"hall", partition=partition)
        producer.send(address.topic("outputs"), b"\x80\x04garbage", key=b"hall", partition=partition)
    producer.flush()
    producer.close()


@with_either_client
def test_others_take_over_from_killed_workers_and_nothing_is_lost_or_doubled(
    trace: Path, urls: tuple[str, str], tmp_path: Path
) -> None:
    with Processes(tmp_path, write_config(tmp_path), *urls) as site:
        for step in STEPS:
            site.start(step, *options(step, trace))
        for victim in ("inference", "linking"):
            site.start(victim, *options(victim, trace), name=f"second {victim}")
        site.start("ingest", "--trace", str(trace))
        site.wait_for(lambda: site.frames_done() > 50, "results begin to come")
        before = site.frames_done()
        for victim in ("inference", "linking"):
            site.kill(victim)
        assert before < FRAMES * len(CAMERAS), "all was done before anyone could be killed"
        site.wait_for(lambda: site.frames_done() == FRAMES * len(CAMERAS), "all frames served")
        served = Counter((r["camera_id"], r["frame_index"], r["model"]) for r in site.rows() if r["served"])
        assert len(served) == FRAMES * len(CAMERAS) * 3
        assert {key for key, times in served.items() if times > 1} == set()


def as_it_travels(frame: Frame) -> Frame:
    """Return a frame as it comes out of the bus: its picture has been a JPEG."""
    travelled = decode(encode(frame))
    assert isinstance(travelled, Frame)
    return travelled


@pytest.mark.footage
def test_a_real_clip_gives_the_same_rows(footage: Path, urls: tuple[str, str], tmp_path: Path) -> None:
    """Networks on real pixels, at two cameras that show one clip: 80 s of a campus at 2 frames a second."""
    from camlink.models import catalogue
    from camlink.pipeline.ingest.merge import merge
    from camlink.pipeline.ingest.opening import open_source
    from tests.models.tiny import write_classifier_onnx

    clip = footage / "building" / "campus-crossing.avi"
    own = []
    for name in ("colours", "tones"):
        write_classifier_onnx(tmp_path / f"{name}.onnx")
        own.append(
            {
                **{"name": name, "adapter": "onnx", "weights": f"{name}.onnx", "task": "regression"},
                **{"labels": ["blue", "green", "red"], "image_size": 32, "time_ms": 5, "memory_gb": 0.01},
            }
        )
    cameras = [{"id": camera, "source": str(clip), "fps": 2} for camera in ("north", "south")]
    path = write_config(tmp_path, models=own, cameras=cameras, budgets={"time_share": 0.5}, period="20s")
    config = load_config(path)
    pool = ModelPool([catalogue.build(definition, device="cpu") for definition in config.model_definitions()])
    readings = merge([open_source(camera.source_spec(), live=False) for camera in config.cameras])
    frames = [as_it_travels(reading) for reading in readings if isinstance(reading, Frame)]
    known = {camera.id: Camera(camera.domain, str(clip), camera.fps) for camera in config.cameras}
    expected = run_alone(config, pool, known, frames, tmp_path / "alone")
    assert {row["how"] for row in expected} == {"executed", "linked"}
    with Processes(tmp_path, path, *urls, hold_s=PATIENCE_S) as site:
        for step in STEPS:
            site.start(
                step, *(("--device", "cpu") if step == "inference" else ("--flush-s", "0.5") * (step == "results"))
            )
        site.wait_until_joined()
        site.start("ingest", "--replay")
        site.wait_for(lambda: site.frames_done() == len(frames), "all frames served")
        assert facts(site.rows()) == facts(expected)
