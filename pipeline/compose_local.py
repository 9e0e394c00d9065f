"""Runs docker-compose.yml without containers, so that the file itself is tried wherever there is no Docker.

Each service built from our image is started with the very command and environment that the file gives it; what is a
container's there is replaced: addresses of servers, paths, ports of health pages, and the GPU.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from camlink.pipeline import testbed
from camlink.pipeline.commands.console import print_error
from camlink.pipeline.errors import CamlinkError, ConfigError, Problem

LAST = "results"
STOP_S = 30.0
COMPOSE = Path("docker-compose.yml")
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}")


def our_services(compose: Path = COMPOSE) -> dict[str, dict[str, Any]]:
    """Return the services that run camlink by default (no profile), with variables filled in. Raises `ConfigError`."""
    try:
        services = yaml.safe_load(compose.read_text(encoding="utf-8"))["services"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError([Problem(str(compose), None, f"is no compose file: {error}")]) from error
    return {
        name: {
            "command": list(service["command"]),
            "environment": {k: filled(str(v), os.environ) for k, v in service["environment"].items()},
        }
        for name, service in services.items()
        if str(service.get("image", "")).startswith("camlink") and "profiles" not in service
    }


def filled(text: str, environment: Mapping[str, str]) -> str:
    """Return ``text`` with ``${NAME}`` and ``${NAME:-default}`` replaced, as compose does.

    >>> filled("${A:-1}/${B:-2}", {"A": "x"})
    'x/2'
    """
    return _VARIABLE.sub(lambda m: environment.get(m["name"]) or m["default"] or "", text)


def _here(argument: str, out: Path) -> str:
    """Return what stands for an argument that speaks of a container's disk, ports or network."""
    stands = {"/results": str(out), "0.0.0.0": "127.0.0.1", "8765": "0"}  # port 0: a free one
    return stands.get(argument, argument)


class LocalSite:
    """The services of a compose file as processes, until `stop`."""

    def __init__(self, site: Path, out: Path, bus: str, state: str) -> None:
        out.mkdir(parents=True, exist_ok=True)
        here = {
            "CAMLINK_CONFIG": str(site.resolve()),
            "CAMLINK_BUS": bus,
            "CAMLINK_STATE": state,
            "CAMLINK_DEVICE": "cpu",
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for name, service in our_services().items():
            command = [_here(argument, out) for argument in service["command"]]
            environment = {**os.environ, **service["environment"], **here}
            environment["CAMLINK_HEALTH"] = f"127.0.0.1:{testbed.free_port()}"
            environment["CAMLINK_OUT"] = str(out / "results")
            with (out / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "-m", "camlink.pipeline.cli", "--verbose", *command],
                    env=environment,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                )

    def failed(self) -> list[str]:
        """Return the services that ended with an error."""
        return [name for name, process in self.processes.items() if process.poll() not in (None, 0)]

    def stop(self) -> dict[str, int]:
        """Ask all to stop, and return how they ended; who does not within 30 s is killed.

        The bus ends with them, so the results worker goes last: what the others give as they end is still written.
        """
        others = [process for name, process in self.processes.items() if name != LAST]
        for group in (others, [self.processes[LAST]]):
            _end(group)
        return {name: process.wait() for name, process in self.processes.items()}


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def main(
    site: Annotated[Path, typer.Argument(exists=True, help="Site configuration.")],
    out: Annotated[Path, typer.Option(help="Folder for results and logs.")] = Path("runs/compose-local"),
    seconds: Annotated[float, typer.Option(help="Stop after so long; 0 runs until Ctrl-C.")] = 0.0,
) -> None:
    """Start the services of docker-compose.yml as local processes."""
    from camlink.pipeline.commands.running import stop_on_interrupt
    from camlink.pipeline.config import load_config

    load_config(str(site))  # one word about what is wrong with it, in place of one in each service's log
    with testbed.broker() as broker, testbed.redis_server() as redis:
        bus = f"kafka://127.0.0.1:{broker.port}/local?partitions=4&wait_ms=5"
        local = LocalSite(site, out, bus, f"redis://127.0.0.1:{redis.port}")
        typer.echo(f"{', '.join(local.processes)} started; logs and results in {out}")
        started = time.monotonic()
        try:
            with stop_on_interrupt(lambda: None) as stop:  # also where Ctrl-C is ignored, as by nohup
                while not (stop() or local.failed()) and (not seconds or time.monotonic() - started < seconds):
                    time.sleep(0.2)
        finally:
            failed = local.failed()  # before the others are stopped for it
            codes = local.stop()
    wrong = failed or [name for name, code in codes.items() if code]
    if wrong:
        raise CamlinkError("; ".join(f"{name} ended with {codes[name]}, see {out / name}.log" for name in wrong))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except CamlinkError as error:
        print_error(error)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
