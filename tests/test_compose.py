"""docker-compose.yml is what it says: a service for each step, commands that exist, no secret, and it runs."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from camlink.pipeline.bus.kafka_topics import KafkaAddress
from camlink.pipeline.compose_local import LocalSite, our_services
from camlink.pipeline.graph import GRAPH


def test_each_step_of_the_graph_has_a_service(repository: Path) -> None:
    services = our_services(repository / "docker-compose.yml")
    commands = [service["command"] for service in services.values()]
    assert {command[1] for command in commands if command[0] == "worker"} == {step.name for step in GRAPH}
    assert {command[0] for command in commands} == {"worker", "dashboard"}


def test_the_dashboard_shows_what_the_results_worker_writes_and_asks_for_a_token(repository: Path) -> None:
    from camlink.pipeline.dashboard.auth import is_local

    services = yaml.safe_load((repository / "docker-compose.yml").read_text())["services"]
    page, results = services["dashboard"], services["results"]
    folder, host = page["command"][1], page["command"][page["command"].index("--host") + 1]
    assert page["volumes"] == [f"results:{folder}:ro"]
    assert f"results:{folder}" in results["volumes"]
    assert Path(results["environment"]["CAMLINK_OUT"]).parent == Path(folder)
    assert not is_local(host), "then `camlink dashboard` makes a token itself where none is given"
    assert page["environment"] == {"CAMLINK_DASHBOARD_TOKEN": "${CAMLINK_DASHBOARD_TOKEN:-}"}
    port = page["command"][page["command"].index("--port") + 1]
    assert page["ports"] == [f"127.0.0.1:${{DASHBOARD_PORT:-8765}}:{port}"]
    assert f"127.0.0.1:{port}/healthz" in page["healthcheck"]["test"][-1]


def test_live_cameras_never_wait_for_a_gpu_that_is_behind(repository: Path) -> None:
    services = yaml.safe_load((repository / "docker-compose.yml").read_text())["services"]
    for name in ("inference", "inference-cpu"):
        command = services[name]["command"]
        assert command[command.index("--when-behind") + 1] == "drop-oldest"


def test_no_secret_stands_in_the_file_and_none_listens_beyond_the_site(repository: Path) -> None:
    text = (repository / "docker-compose.yml").read_text()
    for value in re.findall(r"PASSWORD: (.*)", text):
        assert value.startswith("${"), "passwords come from the environment"
        assert value.endswith(":-}")
    services = yaml.safe_load(text)["services"]
    assert "name" not in yaml.safe_load(text)
    published = {name: port for name, service in services.items() for port in service.get("ports", ())}
    assert set(published) == {"grafana", "dashboard"}
    assert all(port.startswith("127.0.0.1:") for port in published.values())


def test_every_image_is_pinned_and_every_worker_is_watched(repository: Path) -> None:
    services = yaml.safe_load((repository / "docker-compose.yml").read_text())["services"]
    foreign = {service["image"] for service in services.values()} - {"camlink:latest"}
    assert all(re.search(r":v?\d+\.\d+", image) for image in foreign), foreign
    scraped = yaml.safe_load((repository / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    (names,) = [found["names"] for found in scraped["dns_sd_configs"]]
    assert set(names) == {name for name, service in services.items() if service.get("command", [""])[0] == "worker"}
    ours = services["linking"]["environment"]
    assert ours["CAMLINK_HEALTH"].endswith(f":{scraped['dns_sd_configs'][0]['port']}")
    assert all("no-new-privileges:true" in services[name]["security_opt"] for name in ("prometheus", "grafana", *names))


def test_what_is_mounted_from_the_checkout_is_there(repository: Path) -> None:
    services = yaml.safe_load((repository / "docker-compose.yml").read_text())["services"]
    mounted = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", ())}
    here = [source for source in mounted if source.startswith("./")]
    assert here
    assert all((repository / source).exists() for source in here), here
    provided = yaml.safe_load((repository / "deploy/grafana/provisioning/dashboards/camlink.yml").read_text())
    folders = [provider["options"]["path"] for provider in provided["providers"]]
    assert all(any(f":{folder}:" in volume for volume in services["grafana"]["volumes"]) for folder in folders)


def test_every_credential_the_code_reads_can_be_given(repository: Path) -> None:
    read = set()
    for file in ("pipeline/bus/kafka_topics.py", "pipeline/state/redis.py"):
        read |= set(re.findall(r"CAMLINK_(?:KAFKA|REDIS)_[A-Z]+", (repository / file).read_text()))
    services = yaml.safe_load((repository / "docker-compose.yml").read_text())["services"]
    assert len(read) == 8
    assert read <= set(services["linking"]["environment"])
    assert read <= set(services["results"]["environment"])


@pytest.mark.parametrize("overlay", [(), ("docker-compose.cpu.yml",)])
def test_compose_itself_accepts_the_files(repository: Path, overlay: tuple[str, ...]) -> None:
    binary = shutil.which("docker-compose")
    if binary is None:
        pytest.skip("no docker-compose: apt-get install docker-compose")
    files = [argument for name in ("docker-compose.yml", *overlay) for argument in ("-f", name)]
    done = subprocess.run([binary, *files, "config", "-q"], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_image_is_pinned_and_not_root(repository: Path) -> None:
    lines = (repository / "Dockerfile").read_text().splitlines()
    (base,) = [line for line in lines if line.startswith("ARG BASE_IMAGE=")]
    assert re.search(r":\d+\.\d+\.\d+", base)
    users = [line for line in lines if line.startswith("USER ")]
    assert users == ["USER camlink"]
    assert any("-c constraints.txt" in line for line in lines)


def test_what_the_others_give_as_they_end_is_still_written(tmp_path: Path) -> None:
    """Each process writes its name as it is stopped; the worker before the last one takes a while to."""
    line = "trap 'sleep {wait}; echo {name} >> ended; exit 0' TERM; echo {name} >> begun; while :; do sleep 0.05; done"
    site = LocalSite.__new__(LocalSite)
    site.processes = {
        name: subprocess.Popen(["bash", "-c", line.format(name=name, wait=wait)], cwd=tmp_path)
        for name, wait in (("results", 0), ("linking", 0.5))
    }
    while not (tmp_path / "begun").exists() or len((tmp_path / "begun").read_text().splitlines()) < 2:
        assert not site.failed()
    assert site.stop() == {"results": 0, "linking": 0}
    assert (tmp_path / "ended").read_text().splitlines() == ["linking", "results"]


@pytest.mark.broker
@pytest.mark.footage
@pytest.mark.slow
def test_the_services_run_as_the_file_says(repository: Path, footage: Path, tmp_path: Path) -> None:
    """A clip stands in for a live camera; the services' own commands carry it to results on disk."""
    from camlink.pipeline.results import RunResults
    from tests.models.tiny import write_yolo_onnx

    write_yolo_onnx(tmp_path / "tiny.onnx")
    model = {"name": "tiny", "adapter": "onnx", "weights": "tiny.onnx", "task": "count", "labels": ["person"]}
    model |= {"classes": ["person"], "image_size": 32, "time_ms": 5, "memory_gb": 0.01}
    clip = footage / "building" / "campus-crossing.avi"
    site = {"models": [model], "cameras": [{"id": "gate", "source": str(clip), "fps": 2}]}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(site))
    command = [sys.executable, "-m", "camlink.pipeline.compose_local", str(tmp_path / "site.yaml")]
    running = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out"), "--seconds", "150"],
        cwd=repository,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 150.0  # on a busy machine the first worker takes half a minute to start
    while (
        running.poll() is None
        and time.monotonic() < deadline
        and not any(tmp_path.glob("out/results/outputs/**/*.parquet"))
    ):
        time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=90)
    logs = "\n".join(f"{p.name}: {p.read_text()[-600:]}" for p in (tmp_path / "out").glob("*.log"))
    assert running.returncode == 0, said + logs
    results = RunResults(tmp_path / "out" / "results")
    assert results.frames_seen("gate") > 0, logs


def test_a_site_with_a_mistake_is_refused_before_anything_is_started(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("models: building\nperiod: 1m\ncameras: [{id: gate, source: gate.mp4}]\n")
    command = [sys.executable, "-m", "camlink.pipeline.compose_local", str(tmp_path / "site.yaml")]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "site.yaml:2: period:" in done.stderr.replace("\n", "") and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_image_holds_the_client_that_its_workers_are_told_to_use(repository: Path) -> None:
    services = yaml.safe_load((repository / "docker-compose.yml").read_text())["services"]
    bus = services["linking"]["environment"]["CAMLINK_BUS"]
    assert KafkaAddress.parse(bus.removeprefix("${CAMLINK_BUS:-").removesuffix("}")).client == "confluent"
    kustomization = yaml.safe_load((repository / "deploy/kubernetes/base/kustomization.yaml").read_text())
    told = [text for made in kustomization["configMapGenerator"] for text in made.get("literals", ())]
    literals = dict(text.split("=", 1) for text in told)
    assert KafkaAddress.parse(literals["CAMLINK_BUS"]).client == "confluent"
    (extras,) = re.findall(r"^ARG EXTRAS=(.*)$", (repository / "Dockerfile").read_text(), re.MULTILINE)
    assert {"kafka", "confluent", "redis"} <= set(extras.split(","))
