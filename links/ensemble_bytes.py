"""Ensembles as bytes, without pickle: a zip of arrays and one JSON header. They travel in link promotions."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from typing import Any

import numpy as np

from camlink.links.base import Array
from camlink.links.counts import CountCode
from camlink.links.ensemble import Belief, Ensemble, Trust
from camlink.links.memory import Memory
from camlink.links.scaling import FittedLink
from camlink.links.set_to_vec import SetToVec
from camlink.links.vec_to_vec import VecToVec
from camlink.models.base import OutputSpec
from camlink.pipeline.errors import LinkError

FORMAT = 3
ZIP = b"PK\x03\x04"  # as every zip with a file in it begins
_BELIEFS = ("alone", "with_memory", "memory_alone")
_MEMORY = ("base", "steady", "lifetime_s")


def to_bytes(ensemble: Ensemble) -> bytes:
    """Serialise an ensemble. `from_bytes` reads it."""
    trust, code = ensemble.trust, ensemble.code
    header: dict[str, Any] = {
        "format": FORMAT,
        "target": asdict(ensemble.target),
        "sources": {s: asdict(link.source) for s, link in ensemble.links.items()},
        "weights": dict(ensemble.weights),
        "held_out_agreement": ensemble.held_out_agreement,
        "levels": None if code is None else code.levels,
        "trust": None if trust is None else [asdict(getattr(trust, name)) for name in _BELIEFS],
    }
    arrays = {f"link/{s}/{name}": value for s, link in ensemble.links.items() for name, value in link.weights().items()}
    if trust is not None:
        arrays["constant"] = trust.constant
        if trust.memory is not None:
            arrays.update({f"memory/{name}": getattr(trust.memory, name) for name in _MEMORY})
    buffer = io.BytesIO()
    meta = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    np.savez(buffer, allow_pickle=False, header=meta, spread=ensemble.spread, **arrays)
    return buffer.getvalue()


def from_bytes(payload: bytes) -> Ensemble:
    """Read what `to_bytes` wrote. Raises `LinkError` for anything else."""
    if not payload.startswith(ZIP):  # numpy would take it for a pickle, and advise to trust it
        raise LinkError("not a saved ensemble: no zip of arrays")
    try:
        with np.load(io.BytesIO(payload), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(arrays["header"].tobytes())
        found = header["format"]
    except Exception as error:  # zip, array and JSON readers each have their own errors for damaged bytes
        raise LinkError(f"not a saved ensemble: {error}") from error
    if found != FORMAT:
        raise LinkError(f"a saved ensemble of format {found}; this version of camlink reads {FORMAT}: train it again")
    try:
        return _read(header, arrays)
    except LinkError:
        raise
    except Exception as error:  # a header with a missing or odd field fails in as many ways as it has fields
        raise LinkError(f"not a saved ensemble: {type(error).__name__}: {error}") from error


def _read(header: dict[str, Any], arrays: dict[str, Array]) -> Ensemble:
    target = _spec(header["target"])
    code = None if header["levels"] is None else CountCode(tuple(int(n) for n in header["levels"]))
    output = target if code is None else code.spec(target)
    links = {s: _link(_spec(source), output, s, arrays) for s, source in header["sources"].items()}
    weights = {s: float(header["weights"][s]) for s in links}
    return Ensemble(
        target,
        links,
        weights,
        _numbers(arrays["spread"], target.size),
        float(header["held_out_agreement"]),
        code,
        _trust(header, arrays, output.size),
    )


def _link(source: OutputSpec, output: OutputSpec, name: str, arrays: dict[str, Array]) -> FittedLink:
    kind = SetToVec if source.kind == "set" else VecToVec
    own = f"link/{name}/"
    return kind(source, output, **{key.removeprefix(own): a for key, a in arrays.items() if key.startswith(own)})


def _trust(header: dict[str, Any], arrays: dict[str, Array], width: int) -> Trust | None:
    if header["trust"] is None:
        return None
    beliefs = (Belief(float(b["share"]), float(b["honesty"])) for b in header["trust"])
    named = dict(zip(_BELIEFS, beliefs, strict=True))
    memory = None
    if "memory/base" in arrays:
        memory = Memory(*(_numbers(arrays[f"memory/{name}"], width) for name in _MEMORY))
    return Trust(_numbers(arrays["constant"], width), memory=memory, **named)


def _numbers(array: Array, size: int) -> Array:
    if array.shape != (size,) or not np.isfinite(array).all():
        raise LinkError(f"not a saved ensemble: expected {size} finite numbers, got an array of shape {array.shape}")
    return array


def _spec(fields: dict[str, Any]) -> OutputSpec:
    labels = tuple(str(label) for label in fields.pop("labels", ()))
    return OutputSpec(**fields, labels=labels)
