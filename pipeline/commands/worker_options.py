"""Options of `camlink worker`, looked at before anything is connected to.

A server that is away must not hide what is written wrongly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import typer

from camlink.pipeline.commands.console import known_device

WhenBehind = Literal["block", "drop-oldest"]
HEALTH = "Serve /healthz, /readyz, /metrics on HOST:PORT or a loopback PORT."


def known_bus(url: str) -> str:
    """Check ``--bus``. Raises `typer.BadParameter` for what is no address of a bus between processes."""
    from camlink.pipeline.bus.kafka_topics import KafkaAddress
    from camlink.pipeline.errors import BusError

    if not url.startswith("kafka://"):
        raise typer.BadParameter(f'"{_masked(url)}" is no bus between processes; write kafka://HOST:PORT/SITE')
    try:
        KafkaAddress.parse(url)
    except (BusError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    return url


def known_state(url: str) -> str:
    """Check ``--state``. Raises `typer.BadParameter` for what is no address of a store between processes."""
    if not url.startswith(("redis://", "rediss://")):
        raise typer.BadParameter(f'"{_masked(url)}" is no store between processes; write redis://HOST:PORT')
    return url


def known_health(address: str | None) -> str | None:
    """Check ``--health``. Raises `typer.BadParameter` for what is no HOST:PORT and no PORT."""
    if address:
        try:
            port = urlsplit(f"//{address if ':' in address else f':{address}'}").port
        except ValueError:
            port = None
        if port is None:
            raise typer.BadParameter(f'"{address}" is no address; write HOST:PORT, or a PORT from 0 to 65535')
    return address


def known_trace(folder: Path | None) -> Path | None:
    """Check ``--trace``. Raises `TraceError` for what is no trace."""
    from camlink.models.trace_arrays import check_folder

    if folder is not None:
        check_folder(folder)
    return folder


def known_share(share: str) -> str:
    """Check ``--share``. Raises `typer.BadParameter` for what is not I/N with I from 1 to N."""
    number, _, of = share.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise typer.BadParameter(f'"{share}" is no share; write I/N, such as 2/3')
    return share


def _masked(url: str) -> str:
    from camlink.pipeline.ingest.masking import mask_url

    return mask_url(url)


ConfigArgument = Annotated[str, typer.Argument(envvar="CAMLINK_CONFIG", help="Site configuration, the same for all.")]
BusOption = Annotated[
    str, typer.Option("--bus", envvar="CAMLINK_BUS", help="kafka://HOST:PORT/SITE?partitions=12", callback=known_bus)
]
StateOption = Annotated[
    str, typer.Option("--state", envvar="CAMLINK_STATE", help="redis://HOST:PORT", callback=known_state)
]
HealthOption = Annotated[
    str | None, typer.Option("--health", envvar="CAMLINK_HEALTH", help=HEALTH, callback=known_health)
]
DeviceOption = Annotated[
    str | None, typer.Option(envvar="CAMLINK_DEVICE", help="auto, cpu, cuda or cuda:N.", callback=known_device)
]
HoldOption = Annotated[
    float,
    typer.Option("--hold-s", envvar="CAMLINK_HOLD_S", min=0.0, help="Longest wait for what other workers are to say."),
]
ShareOption = Annotated[
    str, typer.Option(help="I/N: of N ingest workers this is the I-th, from 1, with its cameras.", callback=known_share)
]
TRACE = "Recorded outputs in place of cameras and models, as in a replay."
TraceOption = Annotated[Path | None, typer.Option("--trace", help=TRACE, callback=known_trace)]
