"""The Kubernetes manifests are valid, complete, locked down, and say what docker-compose.yml says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from camlink.pipeline.bus.kafka_topics import KafkaAddress
from camlink.pipeline.config import load_config
from camlink.pipeline.graph import GRAPH

KUBERNETES = "1.31"
WORKERS = {step.name for step in GRAPH}
Manifest = dict[str, Any]


def documents(path: Path) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def built(folder: Path) -> list[Manifest]:
    """What `kustomize build` would give, as far as these files use it: resources, bases, patches by strategic merge."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(kustomization) <= {
        *("apiVersion", "kind", "namespace", "resources", "patches", "configMapGenerator", "images")
    }
    found: list[Manifest] = []
    for name in kustomization["resources"]:
        path = folder / name
        found += built(path) if path.is_dir() else documents(path)
    for patch in kustomization.get("patches", ()):
        for change in documents(folder / patch["path"]):
            (target,) = [m for m in found if identity(m) == identity(change)]
            target.update(merged(target, change))
    return found


def identity(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def merged(base: Any, change: Any) -> Any:
    """Mappings merge, lists of named things merge by name, anything else is replaced."""
    if isinstance(base, Mapping) and isinstance(change, Mapping):
        return {**base, **{key: merged(base.get(key), value) for key, value in change.items()}}
    if isinstance(base, list) and isinstance(change, list) and all("name" in item for item in [*base, *change]):
        by_name = {item["name"]: item for item in change}
        assert set(by_name) <= {item["name"] for item in base}, "a patch for what is not there"
        return [merged(item, by_name.get(item["name"], {})) for item in base]
    return deepcopy(change)


@pytest.fixture(params=["base", "overlays/gpu"])
def site(request: pytest.FixtureRequest, repository: Path) -> list[Manifest]:
    return built(repository / "deploy/kubernetes" / request.param)


def by_kind(site: list[Manifest], *kinds: str) -> dict[str, Manifest]:
    return {m["metadata"]["name"]: m for m in site if m["kind"] in kinds}


def pods(site: list[Manifest]) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Name, pod and its one container, of everything that runs."""
    for name, manifest in by_kind(site, "Deployment", "StatefulSet").items():
        pod = manifest["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        yield name, pod, container


def test_every_file_belongs_to_a_kustomization(repository: Path) -> None:
    for folder in (repository / "deploy/kubernetes").rglob("kustomization.yaml"):
        told = yaml.safe_load(folder.read_text())
        named = {*told["resources"], *(patch["path"] for patch in told.get("patches", ()))}
        named |= {file for made in told.get("configMapGenerator", ()) for file in made.get("files", ())}
        assert {p.name for p in folder.parent.glob("*.yaml")} - {"kustomization.yaml"} <= named


def test_kubernetes_own_schemas_accept_the_manifests(site: list[Manifest]) -> None:
    for manifest in site:
        if manifest["kind"] != "ScaledObject":  # KEDA's; looked at below
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_a_wrong_manifest_would_be_noticed(site: list[Manifest]) -> None:
    broken = deepcopy(by_kind(site, "Deployment")["linking"])
    broken["spec"]["replica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


def test_each_step_runs_with_the_command_of_the_compose_file(site: list[Manifest], repository: Path) -> None:
    services = yaml.safe_load((repository / "docker-compose.yml").read_text())["services"]
    containers = {name: container for name, _, container in pods(site)}
    assert set(containers) == {*WORKERS, "redis"}
    for name in WORKERS - {"ingest"}:
        assert containers[name]["args"] == services[name]["command"]
        assert "command" not in containers[name], "the image's entry point is camlink"
    (shell,) = containers["ingest"]["args"]
    assert " ".join(services["ingest"]["command"]) in shell
    assert containers["redis"]["image"] == services["redis"]["image"]


def test_the_environment_is_that_of_the_compose_file_and_secrets_come_by_reference(
    site: list[Manifest], repository: Path
) -> None:
    services = yaml.safe_load((repository / "docker-compose.yml").read_text())["services"]
    told = yaml.safe_load((repository / "deploy/kubernetes/base/kustomization.yaml").read_text())
    literals = {made["name"]: made.get("literals", []) for made in told["configMapGenerator"]}
    given = dict(literal.split("=", 1) for literal in literals["camlink-site"])
    wanted = {k for k in services["results"]["environment"] if not re.match(r"CAMLINK_(KAFKA|REDIS)_", k)}
    assert wanted <= set(given)
    assert not any("PASSWORD" in name or "USERNAME" in name for name in given)
    assert all(manifest["kind"] != "Secret" for manifest in site), "secrets are made by whoever knows them"
    for name, _, container in pods(site):
        references = [next(iter(source.values()))["name"] for source in container["envFrom"]]
        assert "camlink-credentials" in references
        assert name == "redis" or "camlink-site" in references
    assert load_config(repository / "deploy/kubernetes/base/site.yaml").cameras
    KafkaAddress.parse(given["CAMLINK_BUS"])


def test_pods_are_locked_down_and_bounded(site: list[Manifest]) -> None:
    for name, pod, container in pods(site):
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"], name
        assert container["securityContext"]["readOnlyRootFilesystem"], name
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
        assert not container["securityContext"]["allowPrivilegeEscalation"], name
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]) and container["resources"]["limits"][
            "memory"
        ]
        assert container["livenessProbe"] and container["readinessProbe"], name
    covered = {
        m["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"]
        for m in by_kind(site, "PodDisruptionBudget").values()
    }
    assert covered == WORKERS


def test_every_label_a_selector_asks_for_is_on_some_pod(site: list[Manifest]) -> None:
    labels = [m["spec"]["template"]["metadata"]["labels"] for m in by_kind(site, "Deployment", "StatefulSet").values()]
    for manifest in site:
        spec = manifest.get("spec", {})
        selector = spec.get("selector", spec.get("podSelector"))
        if selector is not None:
            wanted = selector.get("matchLabels", selector)
            assert any(wanted.items() <= has.items() for has in labels), identity(manifest)


def test_volumes_that_are_mounted_exist(site: list[Manifest]) -> None:
    for name, pod, container in pods(site):
        claims = by_kind(site, "StatefulSet").get(name, {}).get("spec", {}).get("volumeClaimTemplates", ())
        there = {v["name"] for v in pod.get("volumes", ())} | {claim["metadata"]["name"] for claim in claims}
        assert {mount["name"] for mount in container.get("volumeMounts", ())} <= there, name


def test_scaling_follows_the_lag_of_the_groups_that_the_workers_join(site: list[Manifest], repository: Path) -> None:
    told = yaml.safe_load((repository / "deploy/kubernetes/base/kustomization.yaml").read_text())
    (bus,) = [
        literal.split("=", 1)[1]
        for made in told["configMapGenerator"]
        for literal in made.get("literals", ())
        if literal.startswith("CAMLINK_BUS=")
    ]
    address = KafkaAddress.parse(bus)
    shares = {step.name: step.shares for step in GRAPH}
    scaled = by_kind(site, "ScaledObject")
    assert set(scaled) == {"inference", "linking", "adaptation", "scheduler"}
    for name, manifest in scaled.items():
        assert manifest["apiVersion"] == "keda.sh/v1alpha1"
        assert manifest["spec"]["scaleTargetRef"]["name"] == name
        assert manifest["spec"]["maxReplicaCount"] <= address.partitions, "more would stand idle"
        assert "replicas" not in by_kind(site, "Deployment")[name]["spec"], "KEDA owns the number"
        (trigger,) = manifest["spec"]["triggers"]
        assert trigger["metadata"]["consumerGroup"] == f"{address.site}.{name}"
        assert [address.bare(trigger["metadata"]["topic"])] == list(shares[name])
        assert trigger["metadata"]["bootstrapServers"] in address.servers


def test_ingest_shares_are_as_many_as_its_pods(repository: Path) -> None:
    base = repository / "deploy/kubernetes/base"
    ingest = by_kind(built(base), "StatefulSet")["ingest"]
    assert f"INGEST_REPLICAS={ingest['spec']['replicas']}" in (base / "kustomization.yaml").read_text()


def test_the_gpu_overlay_gives_inference_and_nobody_else_a_gpu(repository: Path) -> None:
    pods_of = {name: (pod, c) for name, pod, c in pods(built(repository / "deploy/kubernetes/overlays/gpu"))}
    with_gpu = {name for name, (_, c) in pods_of.items() if "nvidia.com/gpu" in c["resources"]["limits"]}
    assert with_gpu == {"inference"}
    pod, container = pods_of["inference"]
    assert pod["nodeSelector"] == {"camlink/pool": "gpu"}
    assert container["args"] == ["worker", "inference", "--when-behind", "drop-oldest"], (
        "the patch leaves the rest as it was"
    )
