"""How far answers agree on every frame: where a trace is replayed, what each model would have said is there to compare.

Live it is not, so reports know audit frames alone. Here what they estimate can be held against what it came to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from camlink.models.recorded import RecordedModel
from camlink.models.scores import agreement
from camlink.pipeline.quantities import counted
from camlink.pipeline.records import FrameResult, ModelOutput, Record, RelabelRequest


class EveryFrame:
    """A listener of a `Session` that holds what was answered on served frames against the trace.

    Frames on which every model runs anyway are none of these. What abstained does not agree.
    """

    def __init__(self, models: Sequence[RecordedModel]) -> None:
        self._models = {model.spec.model: model for model in models}
        self._outputs = self._predicted = 0
        self._wrong = 0.0  # all of it among the predicted

    def observe(self, records: Iterable[Record]) -> tuple[RelabelRequest, ...]:
        """Compare what was served; ask for nothing."""
        for record in records:
            if isinstance(record, FrameResult) and record.purpose == "serve":
                for output in record.outputs:
                    if output.served and self._models[output.model].knows(output.camera_id, output.frame_index):
                        self._compare(output)
        return ()

    @property
    def words(self) -> str:
        """Say what it came to; empty where nothing was predicted."""
        if not self._predicted:
            return ""
        every, predicted = (100.0 * (1.0 - self._wrong / count) for count in (self._outputs, self._predicted))
        return (
            "The trace has what the models would have said: on served frames all "
            f"{counted(self._outputs, 'output')} agree to {every:.1f} %, the {self._predicted:,} predicted ones alone "
            f"to {predicted:.1f} %. Live, audits are all there is to know it by."
        )

    def _compare(self, output: ModelOutput) -> None:
        self._outputs += 1
        if output.how == "executed":
            return
        self._predicted += 1
        if output.value is None:
            self._wrong += 1.0
            return
        model = self._models[output.model]
        said = model.answer(output.camera_id, output.frame_index).value
        self._wrong += 1.0 - float(agreement(model.spec, output.value[None], said[None])[0])
