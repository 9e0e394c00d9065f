"""Every policy that `camlink compare` knows by name, and how a user's own is found by import path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

from camlink.links.train import LinkKind
from camlink.models.trace_arrays import CameraTrace
from camlink.operators.baselines.drls import Drls
from camlink.operators.baselines.fixed import everything, standalone
from camlink.operators.baselines.mlink import MLink, choose_by
from camlink.operators.baselines.periodic import Periodic
from camlink.operators.baselines.reducto import Reducto
from camlink.operators.baselines.warm_links import LinkTrainer
from camlink.operators.per_frame import PerFrame
from camlink.operators.policy import FramePolicy, MakePolicy, PolicySetup
from camlink.pipeline.errors import PolicyError
from camlink.pipeline.lab.oracle import oracle
from camlink.pipeline.lab.play import Split
from camlink.pipeline.suggestions import suggest


@dataclass(frozen=True)
class Candidate:
    """A policy to compare. ``make`` is given the camera's trace, which only the oracle looks into.

    ``bound``: a budget is held against it; ``seeded``: its outcome depends on the seed; ``aims``: it can be given a
    target in place of a time budget.
    """

    name: str
    make: Callable[[CameraTrace, PolicySetup, Split], FramePolicy]
    bound: bool = True
    seeded: bool = True
    aims: bool = False


def known_policies(period_s: float, trainer: LinkTrainer | None = None) -> dict[str, Candidate]:
    """Return all named policies. ``trainer`` is shared by those that learn links, so that they learn them once."""
    links = trainer or LinkTrainer()

    def mlink(policy: str, kind: LinkKind = "count_distribution") -> MakePolicy:
        return partial(MLink, choose=choose_by(policy), period_s=period_s, kind=kind, trainer=links)

    candidates = [
        replace(_blind("camlink", PerFrame, seeded=False), aims=True),
        _blind("all", everything, bound=False, seeded=False),
        _blind("standalone", standalone, seeded=False),
        _blind("periodic", Periodic, seeded=False),
        _blind("reducto", Reducto, seeded=False),
        _blind("drls", Drls),
        _blind("mlink", mlink("mlink")),
        _blind("mlink-exact", mlink("mlink-exact")),
        _blind("mlink-paper", mlink("mlink", "vec_to_vec")),
        Candidate("oracle", partial(oracle, period_s=period_s, trainer=links)),
    ]
    return {c.name: c for c in candidates}


def find_policies(names: list[str], period_s: float) -> list[Candidate]:
    """Return the policies called ``names``: known ones, or ``module:Class``; all known ones where none is named.

    Raises `PolicyError` that says what is wrong with a name.
    """
    known = known_policies(period_s)
    return [known.get(name) or _imported(name, known) for name in names] if names else list(known.values())


def _blind(name: str, make: MakePolicy, *, bound: bool = True, seeded: bool = True) -> Candidate:
    return Candidate(name, lambda camera, setup, cut: make(setup), bound, seeded)


def _imported(path: str, known: Mapping[str, Candidate]) -> Candidate:
    module, colon, attribute = path.partition(":")
    if not colon or not module or not attribute:
        raise PolicyError(f'unknown policy "{path}"; {suggest(path, list(known))}, or name your own as module:Class')
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # a console script does not look where it is started
    try:
        make = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise PolicyError(f'policy "{path}": cannot import {module}: {error}') from error
    except AttributeError as error:
        raise PolicyError(f'policy "{path}": {module} has no {attribute}') from error
    if not callable(make):
        raise PolicyError(f'policy "{path}" cannot be called with a PolicySetup; it is a {type(make).__name__}')
    return _blind(path, cast(MakePolicy, make))
