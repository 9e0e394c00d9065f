"""`camlink worker`: one step of the graph as a process among others, over a bus and a state store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from camlink.pipeline.commands.answering import AnswersOption
from camlink.pipeline.commands.console import note_console, print_note, writable_folder
from camlink.pipeline.commands.worker_options import (
    BusOption,
    ConfigArgument,
    DeviceOption,
    HealthOption,
    HoldOption,
    ShareOption,
    StateOption,
    TraceOption,
    WhenBehind,
)

if TYPE_CHECKING:
    from camlink.models.base import OutputSpec
    from camlink.models.pool import ModelPool
    from camlink.operators.base import StateStore
    from camlink.pipeline.assembly import CameraFacts
    from camlink.pipeline.bus.base import Bus
    from camlink.pipeline.clock import Clock
    from camlink.pipeline.config import SiteConfig
    from camlink.pipeline.ingest.base import Reading, SourceSpec
    from camlink.pipeline.session import Listener
    from camlink.pipeline.telemetry import Telemetry

logger = logging.getLogger(__name__)
app = typer.Typer(help="One step of the graph as a process: docs/distributed.md.", no_args_is_help=True)


class Runs(Protocol):
    """What all workers have in common."""

    beat: float

    @property
    def counts(self) -> Any: ...

    def run(self, stop: Callable[[], bool]) -> None: ...


@app.callback()
def prepare() -> None:
    from camlink.pipeline.allocation import share_arenas

    share_arenas()


@app.command()
def ingest(
    config: ConfigArgument,
    bus: BusOption,
    state: StateOption,
    replay: Annotated[bool, typer.Option(help="Read the cameras' files once, at full speed, as recorded.")] = False,
    share: ShareOption = "1/1",
    trace: TraceOption = None,
    health: HealthOption = None,
) -> None:
    """Read cameras and publish their frames."""
    from camlink.pipeline.ingest_worker import Indexes, IngestWorker

    site = _site(config)
    with _connected(bus, state) as (connection, store), ExitStack() as closing:
        readings = _readings(config, site, share, replay, trace, closing)
        recorded = replay or trace is not None
        telemetry = _telemetry(health, {})
        timed = telemetry.timed(readings) if telemetry is not None else readings
        worker = IngestWorker(timed, connection, None if recorded else Indexes(store))
        _serve("ingest", worker, health, telemetry=telemetry)


@app.command()
def inference(
    config: ConfigArgument,
    bus: BusOption,
    state: StateOption,
    device: DeviceOption = None,
    trace: TraceOption = None,
    batch: Annotated[
        int, typer.Option(envvar="CAMLINK_BATCH", min=1, help="Most frames that a model takes at once.")
    ] = 16,
    batch_wait_ms: Annotated[
        float, typer.Option(envvar="CAMLINK_BATCH_WAIT_MS", min=0.0, help="Longest wait of a frame for a full batch.")
    ] = 5.0,
    hold_s: HoldOption = 10.0,
    behind: Annotated[
        WhenBehind,
        typer.Option(
            "--when-behind",
            envvar="CAMLINK_WHEN_BEHIND",
            help="More frames than can be run: block lets them wait on the bus, as a replay should; "
            "drop-oldest runs models on each camera's newest; the others are answered without a model, or dropped.",
        ),
    ] = "block",
    health: HealthOption = None,
) -> None:
    """Run the models that decisions ask for: one process per GPU, batches across its cameras."""
    from concurrent.futures import ThreadPoolExecutor

    from camlink.pipeline import distributed
    from camlink.pipeline.assembly import throttle_of
    from camlink.pipeline.clock import SteadyClock
    from camlink.pipeline.commands.running import encode_picture
    from camlink.pipeline.commands.settings import on_device
    from camlink.pipeline.graph import topic_of

    site = on_device(_site(config), device)
    pool, cameras = _models(config, site, trace)
    pool.take_at_most(batch)
    with ThreadPoolExecutor(1, "loading") as loader, _connected(bus, state) as (connection, store):
        pool.load_beside(loader)
        throttle = throttle_of(site, pool) if behind == "drop-oldest" else None
        operator = distributed.inference(
            *(site, pool, cameras, store, encode_picture),
            hold_s=hold_s,
            behind=behind,
            recorded=trace is not None,
            throttle=throttle,
        )
        for card in distributed.ModelFacts.of_pool(pool).cards():
            connection.publish(topic_of(card), card)
        connection.flush()
        telemetry = _telemetry(health, pool.specs)
        if telemetry is not None:
            pool.watch = telemetry.batch
            telemetry.gauge("models_loaded_gb", "Memory of the models that are loaded", lambda: pool.loaded_gb)
            telemetry.gauge("model_loads", "Times a model was brought into memory", lambda: pool.loads)
            telemetry.machine(throttle)
        gathering = {"batch": batch, "batch_wait_s": batch_wait_ms / 1000, "drains": behind == "drop-oldest"}
        worker = _worker("inference", operator, connection, store, SteadyClock(), **gathering)
        _serve("inference", worker, health, telemetry=telemetry)
        pool.close()


@app.command()
def linking(
    config: ConfigArgument,
    bus: BusOption,
    state: StateOption,
    hold_s: HoldOption = 10.0,
    health: HealthOption = None,
) -> None:
    """Predict the outputs that were not executed."""
    _without_models("linking", config, bus, state, hold_s, health)


@app.command()
def adaptation(
    config: ConfigArgument,
    bus: BusOption,
    state: StateOption,
    hold_s: HoldOption = 10.0,
    health: HealthOption = None,
) -> None:
    """Train links, and put them in force once they have proved better."""
    _without_models("adaptation", config, bus, state, hold_s, health)


@app.command()
def scheduler(
    config: ConfigArgument,
    bus: BusOption,
    state: StateOption,
    hold_s: HoldOption = 10.0,
    health: HealthOption = None,
) -> None:
    """Decide per camera and period which models execute."""
    _without_models("scheduler", config, bus, state, hold_s, health)


@app.command()
def results(
    config: ConfigArgument,
    bus: BusOption,
    out: Annotated[
        Path,
        typer.Option(
            envvar="CAMLINK_OUT", help="Results folder; one that exists is gone on with.", callback=writable_folder
        ),
    ],
    flush_s: Annotated[
        float, typer.Option(min=0.1, help="Seconds between writes; each makes one file per camera.")
    ] = 10.0,
    answers: AnswersOption = None,
    health: HealthOption = None,
) -> None:
    """Write results as Parquet, durably, before the bus may forget them."""
    from camlink.pipeline.bus.base import open_bus
    from camlink.pipeline.commands.alerting import sent_alerts
    from camlink.pipeline.commands.answering import told_answers
    from camlink.pipeline.config.watch import WatchedCameras
    from camlink.pipeline.distributed import await_cards
    from camlink.pipeline.graph import GRAPH
    from camlink.pipeline.results.worker import ResultsWorker, header_of

    site = _site(config)
    connection = open_bus(bus)
    with _stopping() as stop, ExitStack() as closing:
        facts = await_cards(connection, stop)
        step = next(step for step in GRAPH if step.name == "results")
        telemetry = _telemetry(health, facts.specs, _promoted(site, out))
        listeners: list[Listener] = [telemetry.observe] if telemetry is not None else []
        listeners += closing.enter_context(told_answers(answers, facts.specs))
        if site.alerts.rules:
            listeners.append(closing.enter_context(sent_alerts(site, facts.specs, out, telemetry)).observe)
        cameras = WatchedCameras(config, site, telemetry.watched if telemetry is not None else lambda present: None)
        worker = ResultsWorker(
            *(step, connection, out, dict(facts.specs), header_of(site, facts, out)),
            describe=cameras.described,
            flush_s=flush_s,
            listeners=[*listeners, cameras.observe],
        )
        _serve("results", worker, health, stop, telemetry)
    connection.close()


def _without_models(step: str, config: str, bus: str, state: str, hold_s: float, health: str | None) -> None:
    from camlink.pipeline.clock import SteadyClock
    from camlink.pipeline.config import warnings_of
    from camlink.pipeline.distributed import await_cards, without_models

    site = _site(config)
    for warning in warnings_of(site) if step == "adaptation" else ():  # of all workers it is the one that is concerned
        logger.warning("%s", warning)
    with _connected(bus, state) as (connection, store), _stopping() as stop:
        facts = await_cards(connection, stop)
        clock = SteadyClock()
        operator = without_models(step, site, facts, store, clock, hold_s=hold_s)
        _serve(step, _worker(step, operator, connection, store, clock), health, stop)


def _site(config: str) -> SiteConfig:
    from camlink.pipeline.config import load_config

    return load_config(config)


@contextmanager
def _connected(bus: str, state: str) -> Iterator[tuple[Bus, StateStore]]:
    from camlink.pipeline.bus.base import open_bus
    from camlink.pipeline.state.base import open_state

    store = open_state(state)
    connection = open_bus(bus)
    try:
        yield connection, store
    finally:
        connection.close()
        store.close()


def _worker(step: str, operator: Any, bus: Bus, state: StateStore, clock: Clock, **gathering: Any) -> Runs:
    from camlink.pipeline.graph import GRAPH
    from camlink.pipeline.worker import Worker

    return Worker(next(s for s in GRAPH if s.name == step), operator, bus, state, clock, **gathering)


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    from camlink.pipeline.commands.running import stop_on_interrupt

    with stop_on_interrupt(lambda: None) as stop:
        yield stop


def _promoted(site: SiteConfig, out: Path) -> Callable[[str, str], int | None]:
    """Return what tells, of a camera and a model, the version of the links that an earlier worker has put in force."""
    from camlink.links.store import LinkStore
    from camlink.operators.gate import PER_FRAME_POLICIES
    from camlink.pipeline.errors import LinkError

    store = LinkStore(out / "links")

    def version(camera_id: str, model: str) -> int | None:
        try:
            return store.version(camera_id, model)
        except (LinkError, OSError) as error:
            logger.warning("no link version in /metrics until the next promotion: %s", error)
            return None

    return version if site.policy not in PER_FRAME_POLICIES else lambda camera_id, model: None


def _telemetry(
    health: str | None,
    specs: Mapping[str, OutputSpec],
    promoted: Callable[[str, str], int | None] = lambda camera_id, model: None,
) -> Telemetry | None:
    """Return what counts for ``/metrics``; None where nobody can ask for it, or prometheus-client is not there."""
    import time

    from camlink.pipeline.telemetry import Telemetry

    try:
        return Telemetry(specs, now_s=time.time, promoted=promoted) if health else None
    except ImportError as error:
        logger.warning("no /metrics: %s; pip install 'camlink[dashboard]'", error)
        return None


def _serve(
    step: str,
    worker: Runs,
    health: str | None,
    stop: Callable[[], bool] | None = None,
    telemetry: Telemetry | None = None,
) -> None:
    """Run a worker until SIGTERM or Ctrl-C, with its health and metrics."""
    import time

    from camlink.pipeline.health import Health

    def age_s() -> float:
        return time.monotonic() - worker.beat

    telemetry = telemetry or _telemetry(health, {})
    if telemetry is not None:
        telemetry.worker(step, lambda: worker.counts, age_s)
    render = telemetry.render if telemetry is not None else None
    page = Health(health, age_s, lambda: worker.counts, render) if health else None
    try:
        if stop is not None:
            worker.run(stop)
        else:
            with _stopping() as asked:
                worker.run(asked)
    finally:
        if page is not None:
            page.close()
    logger.info("stopped: %s", dict(worker.counts))


def _models(config: str, site: SiteConfig, trace: Path | None) -> tuple[ModelPool, Mapping[str, CameraFacts]]:
    from camlink.pipeline.assembly import CameraFacts, pool_of
    from camlink.pipeline.commands.running import build_pool
    from camlink.pipeline.config.watch import WatchedFacts

    if trace is None:
        return build_pool(site)[0], WatchedFacts(config, site)
    from camlink.models.recorded import open_trace
    from camlink.pipeline.footage import rate_of

    recorded = open_trace(trace)
    facts = {camera: CameraFacts(rate) for camera, rate in rate_of(recorded.frames).items()}
    return pool_of(site, recorded.models), facts


def _readings(
    config: str, site: SiteConfig, share: str, replay: bool, trace: Path | None, closing: ExitStack
) -> Iterable[Reading | None]:
    from camlink.models.recorded import open_trace
    from camlink.pipeline.config.watch import ConfigWatch
    from camlink.pipeline.ingest import Roster, merge, open_source
    from camlink.pipeline.recording import check_replayable

    if trace is not None:
        recorded = open_trace(trace)
        check_replayable(recorded, recorded.models, named_folders=True)
        return iter(sorted(recorded.frames, key=lambda frame: (frame.captured_at, frame.camera_id)))
    specs = _shared(site, share)
    if not specs:
        note_console().print(f"no cameras for share {share} of {len(site.cameras)}", style="yellow")
    if replay:
        return merge([open_source(spec, live=False) for spec in specs])
    watch = ConfigWatch(config, site)

    def edited() -> list[SourceSpec] | None:
        site = watch.poll()
        return None if site is None else _shared(site, share)

    roster = Roster(specs, edits=edited, tell=print_note)
    closing.callback(roster.close)
    return roster


def _shared(site: SiteConfig, share: str) -> list[SourceSpec]:
    from camlink.pipeline.ingest.roster import is_in_share

    number, of = map(int, share.split("/"))
    return [camera.source_spec() for camera in site.cameras if is_in_share(camera.id, number, of)]
