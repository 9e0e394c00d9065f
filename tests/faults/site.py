"""A site under fire: real servers behind proxies, the real workers under a supervisor, and a trace fed in parts."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from camlink.pipeline import testbed
from tests.faults.disk import small_disk
from tests.faults.ledger import Ledger, read_ledger, settled
from tests.faults.proxy import Proxy
from tests.integration.processes import STEPS, Processes

CAMERAS = ("hall", "yard", "roof")
MODELS = {"objects": 2, "persons": 1, "bags": 1}
FRAMES = 6000  # per camera, in the trace
MOST_S = 300.0  # until every frame of a part is accounted for; on a busy machine that takes a while
SETTINGS: dict[str, Any] = {
    "site": "faults",
    "models": "building",
    "period": "2min",
    "policy": "mlink-exact",
    "budgets": {"time_share": 0.4},
    "links": {"bootstrap_frames": 20, "min_train_frames": 20},
    "profile": {"min_frames": 5},
    "audit": {"fraction": 0.1},
    "adaptation": {
        **{"policy": "periodic", "interval": "30s", "frames": 5},
        **{"retrain_after_frames": 20, "shadow_frames": 8},
    },
}


@dataclass
class Seen:
    """What one fault did: times in seconds, on the machine that ran it."""

    ledger: Ledger
    pause_s: float  # the longest stretch without new rows on disk
    caught_up_s: float  # from the last frame published until all were accounted for
    restarts: Counter[str]
    marks: dict[str, float] = field(default_factory=dict)  # what was noted, and how long after the fault
    facts: list[str] = field(default_factory=list)  # what else was measured

    def lines(self) -> Iterator[str]:
        times = [
            f"longest pause {self.pause_s:.1f} s",
            f"all accounted for {self.caught_up_s:.1f} s after the last frame",
        ]
        times += [f"{what.replace('_', ' ')} {after_s:.1f} s after the fault" for what, after_s in self.marks.items()]
        times += [f"{step} restarted {count} x" for step, count in self.restarts.items()]
        yield "; ".join(times + self.facts)
        yield from self.ledger.lines()


class FaultSite(Processes):
    """Workers that are started again when they end, as docker-compose.yml's ``restart: unless-stopped`` does."""

    module = "tests.faults.launcher"

    def __init__(
        self,
        folder: Path,
        trace: Path,
        servers: dict[str, testbed.Server],
        proxies: dict[str, Proxy],
        client: str,
        settings: dict[str, Any],
    ) -> None:
        """``servers`` and the ``proxies`` before them: "broker" and "redis"; ``client``: of Kafka."""
        self.folder = folder
        config = folder / "site.yaml"
        config.write_text(yaml.safe_dump(settings))
        self.bus_url = f"kafka://127.0.0.1:{proxies['broker'].port}/faults?partitions=4&wait_ms=5&client={client}"
        super().__init__(folder, config, self.bus_url, f"redis://127.0.0.1:{proxies['redis'].port}", hold_s=5.0)
        self.servers, self.proxies = servers, proxies
        self.cameras: Sequence[str] = CAMERAS
        self.restarts: Counter[str] = Counter()
        self.own_disk = False  # whether the results lie on a small file system of their own
        self.extra: dict[str, dict[str, str]] = {}  # environment of a step's process, by name
        self._trace = trace
        self._fed = 0
        self._watch = Watch(set(), Counter())

    def up(self) -> None:
        """Start every worker but ingest, and wait until each has its share."""
        for step in STEPS:
            self.launch(step)
        self.wait_until_joined()

    def launch(self, name: str) -> None:
        """Start a worker by the name of its step, or "second STEP"."""
        step = name.rsplit(maxsplit=1)[-1]
        options = {"inference": ("--trace", str(self._trace)), "results": ("--flush-s", "0.5")}.get(step, ())
        if step == "ingest":
            options = ("--trace", str(self._trace))
        self.start(step, *options, name=name, **self.extra.get(step, {}))

    def feed(self, frames: int, fps: float, **environment: str) -> range:
        """Start ingest on the next ``frames`` frames of each camera, and begin to watch; return their indexes."""
        part = range(self._fed, self._fed + frames)
        self._fed = part.stop
        told = {"FAULT_FRAMES": f"{part.start}:{part.stop}", "FAULT_FPS": str(fps), **environment}
        self.extra["ingest"] = {**self.extra.get("ingest", {}), **told}
        published = {(camera, index) for camera in self.cameras for index in part}
        self._watch = Watch(published, Counter(self.restarts))
        self.launch("ingest")
        return part

    def through(self, most_s: float = MOST_S) -> Seen:
        """Tend the site until every frame that was fed is accounted for; return what was seen since."""
        watch, end = self._watch, time.monotonic() + most_s
        while not self._look():
            if time.monotonic() > end:
                ledger = "\n".join(read_ledger(self.out, watch.published, list(MODELS)).lines())
                raise AssertionError(f"frames not accounted for within {most_s:.0f} s\n{ledger}\n{self.tails()}")
            time.sleep(0.25)
        ledger = read_ledger(self.out, watch.published, list(MODELS))
        return Seen(ledger, watch.pause_s, watch.caught_up_s, self.restarts - watch.restarts, watch.marks)

    def struck(self, **expected: Callable[[], bool]) -> None:
        """Note that the fault happens now, and how long after it each of ``expected`` becomes true."""
        self._watch.expected, self._watch.struck = expected, time.monotonic()

    def _look(self) -> bool:
        self.tend()
        return self._watch.saw(settled(self.out), self.is_fed())

    def is_fed(self) -> bool:
        """Say whether ingest has published all it was told to."""
        return "ingest" not in self.running

    def tend(self) -> None:
        """Start again what has ended, as a supervisor does; an ingest that has done its work stays away."""
        for step, process in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            del self.running[step]
            if step != "ingest" or code != 0:
                self.restarts[step] += 1
                self.launch(step)

    def kill(self, name: str) -> None:
        """Kill a worker as a pulled plug would; whoever tends the site starts it again."""
        self.running[name].kill()
        self.running[name].wait()

    @contextmanager
    def second(self, step: str) -> Iterator[str]:
        """Run a second worker of a step, which shares the cameras with the first; it leaves cleanly."""
        name = f"second {step}"
        self.launch(name)
        self.wait_for(lambda: "joined: " in self.log(name), "the second worker joins")
        yield name
        self.stop(name)

    @contextmanager
    def frozen(self, step: str) -> Iterator[None]:
        """Stop a worker in its tracks, as a machine that swaps or a paused container does."""
        process = self.running[step]
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def tended_for(self, seconds: float) -> None:
        """Let time pass, under supervision."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._look()
            time.sleep(0.25)

    def tails(self) -> str:
        """Return the last words of all workers."""
        return "\n".join(f"--- {step}\n{self.log(step)[-1200:]}" for step in (*STEPS, "ingest"))

    def says(self, step: str, *texts: str) -> Callable[[], bool]:
        """Return whether a worker says one of ``texts`` in its log from now on."""
        before = len(self.log(step))
        return lambda: any(text in self.log(step)[before:] for text in texts)

    def joins(self, step: str) -> Callable[[], bool]:
        """Return whether a worker is given its share of the cameras anew, from now on."""
        return self.says(step, "joined: ")


@dataclass
class Watch:
    """Notes how long nothing new came to be accounted for, and when what is expected of a fault was first so."""

    published: set[tuple[str, int]]
    restarts: Counter[str]
    expected: dict[str, Callable[[], bool]] = field(default_factory=dict)
    struck: float = 0.0
    marks: dict[str, float] = field(default_factory=dict)
    pause_s: float = 0.0
    caught_up_s: float = 0.0
    _count: int = -1
    _since: float = 0.0
    _fed: float | None = None

    def saw(self, done: set[tuple[str, int]], fed: bool) -> bool:
        """Take what is accounted for; return whether all is, and none is still to come."""
        now, count = time.monotonic(), len(done & self.published)
        for what, is_so in self.expected.items():
            if what not in self.marks and is_so():
                self.marks[what] = now - self.struck
        if fed and self._fed is None:
            self._fed = now
        if count != self._count or not count:  # a pause begins once something has come
            self._count, self._since = count, now
        self.pause_s = max(self.pause_s, now - self._since)
        if count < len(self.published) or not fed:
            return False
        self.caught_up_s = now - (self._fed or now)
        return True


@contextmanager
def burning_site(
    folder: Path,
    trace: Path,
    client: str,
    cameras: Sequence[str] = CAMERAS,
    extra: Mapping[str, dict[str, str]] = MappingProxyType({}),
    **settings: Any,
) -> Iterator[FaultSite]:
    """Run servers, proxies and workers for as long as the context lasts; ``extra``: environment by step."""
    with ExitStack() as stack:
        proxies = {name: stack.enter_context(Proxy()) for name in ("broker", "redis")}
        servers = {
            "broker": stack.enter_context(testbed.broker(proxies["broker"].port)),
            "redis": stack.enter_context(testbed.redis_server()),
        }
        for name, proxy in proxies.items():
            proxy.target_port = servers[name].port
        site = stack.enter_context(FaultSite(folder, trace, servers, proxies, client, SETTINGS | settings))
        site.cameras = cameras
        site.extra |= extra
        site.own_disk = stack.enter_context(small_disk(site.out))
        site.up()
        yield site


def write_trace(folder: Path, cameras: Sequence[str] = CAMERAS, frames: int = FRAMES) -> Path:
    """Write outputs of three models, such that links can know much of two of them; frames are a second apart."""
    described = {
        name: {"kind": "vector", "size": size, "task": "count", "time_ms": 30.0, "memory_gb": 1.0}
        for name, size in MODELS.items()
    }
    (folder / "trace.yaml").write_text(yaml.safe_dump({"models": described}, sort_keys=False))
    stills, rows = ["camera_id,frame_index,captured_at,pixel_change,edge_density,mean_luma"], []
    for index in range(frames):
        hour, minute, second = 8 + index // 3600, index // 60 % 60, index % 60
        for place, camera in enumerate(cameras):
            people = (index * 7 // 20 + place) % 6
            stills.append(
                f"{camera},{index},2026-01-05T{hour:02}:{minute:02}:{second:02}.{place:03}000+00:00,0.1,0.2,90"
            )
            bags = people * 2 if index // 120 % 2 else people // 2  # the scene changes: links must be learnt anew
            values = {"objects": f"[{people}, {index % 2}]", "persons": f"[{people}]", "bags": f"[{bags}]"}
            rows += [f'{camera},{index},{model},"{value}"' for model, value in values.items()]
    (folder / "frames.csv").write_text("\n".join(stills) + "\n")
    (folder / "outputs.csv").write_text("\n".join(["camera_id,frame_index,model,value", *rows]) + "\n")
    return folder
