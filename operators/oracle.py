"""The oracle node in the running pipeline: says beside each result what a person would (MLink extended, Sec. 4.2)."""

from __future__ import annotations

from collections.abc import Mapping

from camlink.links.domain import Offset
from camlink.links.ensemble import Ensemble
from camlink.pipeline.records import CalibratedOutput, FrameResult


class OracleNode:
    """From what is served of the deployed models to a person's labels: links or an offset per labelled camera."""

    def __init__(self, ensembles: Mapping[str, Ensemble | Offset]) -> None:
        """``ensembles``: camera -> what predicts the oracle; other cameras get no calibrated output."""
        self._ensembles = dict(ensembles)

    def of(self, result: FrameResult) -> CalibratedOutput | None:
        """Return the calibrated output of a frame; None where the camera has no labels, or no source has a value.

        Executed and linked outputs are read alike: what is calibrated is what users of camlink get. Relabelled
        frames have been told of already.
        """
        ensemble = self._ensembles.get(result.camera_id)
        if ensemble is None or result.purpose == "relabel":
            return None
        values = {o.model: o.value for o in result.outputs if o.served and o.value is not None}
        known = {model: values[model] for model in ensemble.links if model in values}
        if not known:
            return None
        value, confidence = ensemble.predict(known)
        return CalibratedOutput(
            result.camera_id,
            result.frame_index,
            result.captured_at,
            ensemble.target.model,
            value,
            tuple(known),
            float(confidence),
        )
