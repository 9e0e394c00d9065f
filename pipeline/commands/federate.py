"""`camlink federate`: sites learn links together, and no output of a model leaves any of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camlink.pipeline.commands.console import DONE, STOPPED, note_console, out_console, writable_folder
from camlink.pipeline.commands.worker_options import known_bus
from camlink.pipeline.quantities import counted

if TYPE_CHECKING:
    from camlink.links.federation import Plan
    from camlink.models.base import OutputSpec
    from camlink.operators.federation import CoordinatorOperator, SiteOperator
    from camlink.pipeline.federation import Party, SiteFrames

PAPER_BYTES_PER_SITE = 2 * 88 * 32  # MLink extended, Sec. 6.6: 88 bytes a sample each way, batches of 32
_LINKS = {"fused": 4, "federated": 3, "local only": 2}  # -> place in a row of figures
app = typer.Typer(help="Learn links over many sites whose outputs stay there: docs/links.md.", no_args_is_help=True)


def known_name(name: str) -> str:
    """Check a name that travels and may name folders. Raises `typer.BadParameter` for another."""
    from camlink.pipeline.ingest.base import CAMERA_ID

    if not CAMERA_ID.fullmatch(name):
        raise typer.BadParameter(f'"{name}" is not 1 to 64 letters, digits, "_", "." or "-"')
    return name


NameOption = Annotated[
    str, typer.Option("--name", help="The federation: letters, digits, '_', '.', '-'.", callback=known_name)
]
BusOption = Annotated[
    str,
    typer.Option("--bus", envvar="CAMLINK_BUS", help="kafka://HOST:PORT/SITE, the same for all.", callback=known_bus),
]
ModelsOption = Annotated[str | None, typer.Option("--models", help="Names, comma-separated; all when not given.")]
TargetsOption = Annotated[str | None, typer.Option("--targets", help="Link to these models; to all when not given.")]
RoundsOption = Annotated[int, typer.Option(min=1, help="Rounds of gradients.")]
ClipOption = Annotated[float, typer.Option(min=1e-6, help="Longest gradient of a link that a site may send.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of the links as they start.")]
OutOption = Annotated[
    Path, typer.Option("--out", help="Folder for the links: links.start of a configuration.", callback=writable_folder)
]


@app.command()
def coordinate(
    frames: Annotated[
        Path, typer.Argument(help="A trace or results folder that has the models; its frames stay unread.")
    ],
    out: OutOption,
    bus: BusOption,
    name: NameOption = "links",
    sites: Annotated[
        str | None, typer.Option(help="Sites to wait for and to hear, comma-separated; whoever comes when not given.")
    ] = None,
    min_sites: Annotated[int, typer.Option(min=1, help="Fewest answers that make a round.")] = 1,
    deadline_s: Annotated[float, typer.Option(min=0.1, help="Longest wait for a round's answers.")] = 10.0,
    models: ModelsOption = None,
    targets: TargetsOption = None,
    rounds: RoundsOption = 400,
    clip_norm: ClipOption = 1.0,
    seed: SeedOption = 0,
) -> None:
    """Ask the sites for gradients, round after round, and write the links. Started again, it goes on where it was."""
    from camlink.operators.federation import RoundRules
    from camlink.pipeline.bus.base import open_bus
    from camlink.pipeline.clock import SteadyClock
    from camlink.pipeline.commands.running import stop_on_interrupt
    from camlink.pipeline.federation import UPDATES, CoordinatorFolder, Party

    clock = SteadyClock()
    rules = RoundRules(timedelta(seconds=deadline_s), min_sites, tuple(_names(sites)))
    if rules.sites and min_sites > len(rules.sites):
        raise typer.BadParameter(f"{min_sites} of {len(rules.sites)} sites", param_hint="--min-sites")
    folder = CoordinatorFolder(out)
    operator = folder.open(name, _plan(_specs(frames, models), targets, rounds, seed), rules, clip_norm, clock)
    connection = open_bus(bus)
    party = Party(
        *(operator, connection, connection.subscribe((UPDATES,), group=f"federation-{name}"), clock),
        checkpoint=lambda: folder.save(name, clip_norm, operator),
    )
    with stop_on_interrupt(lambda: None) as stop:
        done = party.run(stop)
    connection.close()
    _report(operator, party, out)
    raise typer.Exit(DONE if done else STOPPED)


@app.command()
def site(
    frames: Annotated[Path, typer.Argument(help="A trace, or a results folder: the frames on which every model ran.")],
    out: OutOption,
    bus: BusOption,
    site_name: Annotated[
        str, typer.Option("--site", help="This site's name: letters, digits, '_', '.', '-'.", callback=known_name)
    ],
    name: NameOption = "links",
    models: ModelsOption = None,
) -> None:
    """Take part with the frames here, then fuse the global links with local ones. Outputs stay on this machine."""
    from camlink.operators.federation import SiteOperator
    from camlink.pipeline.bus.base import open_bus
    from camlink.pipeline.clock import SteadyClock
    from camlink.pipeline.commands.running import stop_on_interrupt
    from camlink.pipeline.federation import ROUNDS, Party, joined

    here = joined(_cameras([frames], models))
    operator = SiteOperator(site_name, name, here.specs, here.samples)
    connection = open_bus(bus)
    subscription = connection.subscribe((ROUNDS,), group=f"federation-{name}-{site_name}")
    with stop_on_interrupt(lambda: None) as stop:
        done = Party(operator, connection, subscription, SteadyClock()).run(stop)
    connection.close()
    if done:
        _fuse({site_name: operator}, {site_name: out})
    raise typer.Exit(DONE if done else STOPPED)


@app.command()
def rehearse(
    frames: Annotated[list[Path], typer.Argument(help="Traces or results folders; each camera plays a site.")],
    out: OutOption,
    models: ModelsOption = None,
    targets: TargetsOption = None,
    rounds: RoundsOption = 400,
    clip_norm: ClipOption = 1.0,
    seed: SeedOption = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace links that are in the folder already.")] = False,
) -> None:
    """Play coordinator and sites in one process, a site per camera: what would a federation of these bring?"""
    from camlink.links.federation import Server
    from camlink.links.store import folder_name
    from camlink.operators.federation import CoordinatorOperator, RoundRules, SiteOperator
    from camlink.pipeline.bus.memory import MemoryBus
    from camlink.pipeline.clock import SteadyClock
    from camlink.pipeline.errors import RequestError
    from camlink.pipeline.federation import ROUNDS, UPDATES, Party, save_links

    if any((out / "global").glob("*.npz")) and not overwrite:
        raise RequestError(f"{out} already holds links; choose another folder, or say --overwrite")
    cameras = _cameras(frames, models)
    if len(cameras) < 2:
        only = next(iter(cameras))
        raise typer.BadParameter(
            f'"{only}" is the only camera with frames on which every model ran; a federation needs two or more',
            param_hint="FRAMES",
        )
    if "global" in cameras:
        raise typer.BadParameter(
            'a camera is called "global", as the folder of the global links is; rename it', param_hint="FRAMES"
        )
    folders = {camera: out / folder_name(camera) for camera in cameras}
    bus, clock = MemoryBus(), SteadyClock()
    sites = {camera: SiteOperator(camera, "rehearsal", here.specs, here.samples) for camera, here in cameras.items()}
    plan = _plan(next(iter(cameras.values())).specs, targets, rounds, seed)
    rules = RoundRules(sites=tuple(sites), min_sites=len(sites))
    operator = CoordinatorOperator("rehearsal", "rehearsal", Server(plan, clip_norm), rules, clock)
    parties = [Party(operator, bus, bus.subscribe((UPDATES,), "coordinator"), clock)]
    parties += [Party(member, bus, bus.subscribe((ROUNDS,), camera), clock) for camera, member in sites.items()]
    while not all(member.is_done for member in sites.values()):
        for party in parties:
            party.once()
        _raise_refusals(operator, bus.refused)
    for old in [path for folder in (out / "global", *folders.values()) for path in folder.glob("*.npz")]:
        old.unlink()
    save_links(out / "global", operator.server.ensembles)
    _report(operator, parties[0], out / "global")
    _fuse(sites, folders)


def _raise_refusals(operator: CoordinatorOperator, refused: Sequence[tuple[str, object, str]]) -> None:
    from camlink.pipeline.errors import LinkError

    if refused and not operator.is_done:  # it would wait for that site for ever
        raise LinkError(refused[0][2])


def _cameras(paths: Sequence[Path], models: str | None) -> dict[str, SiteFrames]:
    """Return camera -> frames. Raises `typer.BadParameter` for models that are not there, or no frames at all."""
    from camlink.pipeline.federation import frames_of

    for path in paths:
        _specs(path, models)
    cameras: dict[str, SiteFrames] = {}
    for path in paths:
        found = frames_of(path, _names(models))
        twice = sorted(cameras.keys() & found)
        if twice:
            raise typer.BadParameter(f'camera "{twice[0]}" is in {path}, too; name it once', param_hint="FRAMES")
        cameras |= found
    if not cameras:
        raise typer.BadParameter("no frame on which every model ran", param_hint="FRAMES")
    return cameras


def _names(text: str | None) -> list[str]:
    """Return the names in a list with commas, each once."""
    return list(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))


def _specs(path: Path, models: str | None) -> dict[str, OutputSpec]:
    from camlink.models.recorded import open_trace
    from camlink.pipeline.run_info import FILE_NAME, RunInfo
    from camlink.pipeline.suggestions import suggest

    known = RunInfo.load(path).specs() if (path / FILE_NAME).is_file() else dict(open_trace(path).specs)
    chosen = _names(models) or list(known)
    for name in chosen:
        if name not in known:
            raise typer.BadParameter(f'"{name}" is not in {path}; {suggest(name, list(known))}', param_hint="--models")
    return {name: known[name] for name in chosen}


def _plan(specs: Mapping[str, OutputSpec], targets: str | None, rounds: int, seed: int) -> Plan:
    from camlink.links.federation import Plan
    from camlink.pipeline.suggestions import suggest

    for name in _names(targets):
        if name not in specs:
            raise typer.BadParameter(f'"{name}" is none of the models; {suggest(name, specs)}', param_hint="--targets")
    return Plan(specs, tuple(_names(targets)) or tuple(specs), seed, rounds)


def _report(operator: CoordinatorOperator, party: Party, out: Path) -> None:
    """Say what came of it, and what a round of gradients moved. How right the links are, each site says for itself."""
    from camlink.pipeline.tables import print_table

    server, counts = operator.server, operator.counts
    rows = [
        (target, ", ".join(f"{source} {weight:.2f}" for source, weight in ensemble.weights.items()))
        for target, ensemble in server.ensembles.items()
    ]
    print_table(out_console(), ("links to", "from"), rows, names=2, title=f"Global links: {out}")
    down, up = party.bytes_per_message("sent"), party.bytes_per_message("taken")
    notes = note_console()
    notes.print(
        f"{counted(counts['rounds'], 'round')}, {counted(counts['answers'], 'answer')}, {counts['late']} late, "
        f"{counts['refused']} refused, {counted(counts['waits'], 'deadline')} with too few"
    )
    notes.print(
        f"per round of gradients and site: {down:,.0f} bytes out, {up:,.0f} back, for "
        f"{counted(len(server.plan.pairs), 'link')}; the paper's scheme "
        f"moves {PAPER_BYTES_PER_SITE:,} for one link of action labels, batches of 32 (Sec. 6.6)"
    )


def _fuse(sites: dict[str, SiteOperator], folders: dict[str, Path]) -> None:
    """Fuse at each site, write the links, and say what that brought, beside what needs no federation."""
    from camlink.pipeline.federation import baselines, save_links
    from camlink.pipeline.tables import print_table

    rows, figures = [], []
    for name, operator in sites.items():
        learner, shared = operator.learner, operator.result
        assert learner is not None
        assert shared is not None
        fused, alone, federated = learner.fused(shared), learner.alone(shared), learner.agreement(shared)
        save_links(folders[name], fused)
        for target, ensemble in fused.items():
            plain = baselines(ensemble.target, operator.samples[target], learner.held_out)
            shares = (*plain.values(), alone[target].held_out_agreement, federated[target], ensemble.held_out_agreement)
            figures.append(shares)
            rows.append((name, target, *(f"{share:.3f}" for share in shares), f"{learner.held_out.sum():,}"))
    heads = ("site", "links to", "constant", "persistence", "local only", "federated", "fused", "frames")
    print_table(out_console(), heads, rows, names=2, title="Agreement on frames held out at the site")
    out_console().print(verdict(figures), highlight=False, markup=False, soft_wrap=True)
    note_console().print(
        "Constant and persistence are judged on each frame before they learn it. The weights of local-only and fused "
        "links were found on these same frames, which favours them. Neighbouring frames are alike, so that no interval "
        "is given.",
        style="dim",
    )


def verdict(figures: Sequence[Sequence[float]]) -> str:
    """Say what the federation is worth against the choice that a site has without it: its own links, or none.

    ``figures``, one per site and model: agreement of constant, persistence, local only, federated and fused, which
    count as the table shows them, to a thousandth.

    >>> print(verdict([(0.5, 0.6, 0.7, 0.4, 0.8), (0.9, 0.6, 0.7, 0.7, 0.7)]))
    Fused against local only: better 1, equal 1, worse 0 of 2.
    Below the better of constant and persistence: fused 1, federated 2, local only 1 of 2.
    """
    rounded = [[round(share, 3) for share in row] for row in figures]
    gains = [row[4] - row[2] for row in rounded]
    better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    below = {name: sum(row[at] < max(row[:2]) for row in rounded) for name, at in _LINKS.items()}
    return (
        f"Fused against local only: better {better}, equal {len(gains) - better - worse}, worse {worse} "
        f"of {len(gains)}.\nBelow the better of constant and persistence: "
        f"{', '.join(f'{name} {count}' for name, count in below.items())} of {len(gains)}."
    )
