"""The models of one worker under one memory budget: which are loaded, what each has cost, and how to run them.

The scheduler says what should be loaded (`set_loaded`). Profile and audit frames want every model, also those that do
not fit beside the others; then `run` brings a guest in, puts others out for it, and `restore` puts things back (design
ruling 2). Not thread-safe: one worker, one pool; what
`load_beside` loads on another thread is taken in by the worker's own.
"""

from __future__ import annotations

import difflib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from typing import NoReturn

from camlink.models.base import Inference, Model, OutputSpec, check_answers
from camlink.models.device import ran_out
from camlink.pipeline.errors import ModelError
from camlink.pipeline.records import Frame

log = logging.getLogger(__name__)

_ROUNDING_GB = 1e-9
RETRY_S = 10.0  # after which a model that could not be loaded is tried again


class ModelPool:
    """Models by name, never more of them in memory than ``memory_budget_gb`` allows (None: no limit).

    ``loads`` counts loadings; ``busy_ms`` and ``executions`` say, per model, the wall time spent running it and on how
    many frames: the report's model-seconds. ``batch_sizes`` counts batches by their size, and ``watch`` is called after
    each with the model, its frames and its milliseconds.
    """

    def __init__(
        self,
        models: Sequence[Model],
        memory_budget_gb: float | None = None,
        max_batch: int = 16,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Raises `ModelError` for two models of one name, or one that does not fit the budget even alone."""
        self.specs: dict[str, OutputSpec] = {model.spec.model: model.spec for model in models}
        if len(self.specs) < len(models):
            raise ModelError(f"two models share a name: {[model.spec.model for model in models]}")
        self._models = {model.spec.model: model for model in models}
        self._budget_gb, self._clock = memory_budget_gb, clock
        self._batch = dict.fromkeys(self.specs, max(1, max_batch))
        self._wanted: tuple[str, ...] = ()
        self._loaded: list[str] = []  # least recently used first
        self._loader: Executor | None = None
        self._coming: dict[str, Future[None]] = {}  # being loaded beside
        self._before: tuple[str, ...] = ()  # what was asked for before: kept where memory runs out
        self._too_large: dict[str, str] = {}  # models that memory ran out on while loading, until the next decision
        self._broken: dict[str, tuple[str, float]] = {}  # models that could not be loaded: why, and when to try again
        self.loads = 0
        self.busy_ms = dict.fromkeys(self.specs, 0.0)
        self.executions = dict.fromkeys(self.specs, 0)
        self.batch_sizes: dict[str, Counter[int]] = {name: Counter() for name in self.specs}
        self.watch: Callable[[str, int, float], None] = lambda name, frames, ms: None
        for name in self.specs:
            self._check_fits((name,))

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the models in memory now, in the pool's order."""
        return tuple(name for name in self.specs if name in self._loaded)

    @property
    def fits_together(self) -> bool:
        """Whether all models fit the budget at once, so that none ever has to make room for another."""
        return self._excess_gb(tuple(self.specs)) <= 0

    @property
    def loaded_gb(self) -> float:
        """Memory that the loaded models take."""
        return sum(self.memory_gb(name) for name in [*self._loaded, *self._coming])

    def time_ms(self, name: str) -> float:
        """Milliseconds per frame, from the model's cost profile."""
        return self._model(name).time_ms

    def memory_gb(self, name: str) -> float:
        """Memory in GB, from the model's cost profile."""
        return self._model(name).memory_gb

    def take_at_most(self, batch: int) -> None:
        """Give no model more than ``batch`` frames at once from now on."""
        self._batch = {name: max(1, min(batch, known)) for name, known in self._batch.items()}

    def load_beside(self, loader: Executor) -> None:
        """Load what decisions ask for on ``loader`` (of one thread) from now on, so that `run` goes on with the others.

        Whether a model is there is then asked by `is_coming`; `run` waits for one that is not.
        """
        self._loader = loader

    def is_coming(self, name: str) -> bool:
        """Say whether a model is still being loaded beside."""
        if name in self._coming and self._coming[name].done():
            self._arrive(name)
        return name in self._coming

    def set_loaded(self, names: Iterable[str]) -> None:
        """Load exactly ``names`` from now on.

        Raises `ModelError`, and keeps what was loaded, if they exceed the budget or there is less memory than it says.
        """
        asked = set(names)
        for name in sorted(asked):
            self._model(name)
        wanted = tuple(name for name in self.specs if name in asked)
        self._check_fits(wanted)
        if wanted != self._wanted:
            self._before, self._wanted = self._wanted, wanted
        self._too_large.clear()
        self._broken = {name: (why, 0.0) for name, (why, _) in self._broken.items()}
        if (error := self._load_wanted()) is not None:
            self._keep_old()
            raise ModelError(f"{error}; keeping {', '.join(self._before) or 'no model'}") from error

    def restore(self) -> None:
        """Put out guests that `run` brought in, and load again what they displaced, as far as that can be done."""
        if (error := self._load_wanted()) is not None:
            log.error("%s", error)

    def _load_wanted(self) -> ModelError | None:
        """Load what is wanted and nothing else; return the error where memory runs out.

        What cannot be loaded for another reason is told of, and left to `run`, which tries again and says why.
        """
        for name in [*self._coming, *self._loaded]:
            if name not in self._wanted:
                self._unload(name)
        for name in self._wanted:
            if name in self._too_large:
                continue
            if self._loader is None or name in self._loaded:
                try:
                    self._load(name)
                except ModelError as error:
                    if ran_out(error):
                        return error
            elif name not in self._coming:
                self._coming[name] = self._loader.submit(self._load_anew, name)
        return None

    def run(self, name: str, frames: Sequence[Frame]) -> list[Inference]:
        """Return one inference per frame, loading the model first if need be (see `restore`).

        Batches larger than ``max_batch`` are split, and halved again whenever memory runs out. Raises `ModelError`,
        whatever it was that the model raised.
        """
        model = self._model(name)
        if not frames:
            return []
        if name in self._too_large:  # no other has to go for it
            raise ModelError(self._too_large[name])
        self._make_room_for(name)
        self._load(name)
        found: list[Inference] = []
        while len(found) < len(frames):
            batch = frames[len(found) : len(found) + self._batch[name]]
            start = self._clock()
            try:
                answers = model.run(batch)
                check_answers(model.spec, batch, answers)
            except Exception as error:  # a black box may raise anything
                self._halve_batch(name, len(batch), error)
                continue
            finally:
                took_ms = (self._clock() - start) * 1000
                self.busy_ms[name] += took_ms
            self.executions[name] += len(batch)
            self.batch_sizes[name][len(batch)] += 1
            self.watch(name, len(batch), took_ms)
            found.extend(answers)
        return found

    def close(self) -> None:
        """Unload everything."""
        for name in [*self._coming, *self._loaded]:
            self._unload(name)

    def _keep_old(self) -> None:
        self._wanted = self._before
        self.restore()

    def _arrive(self, name: str) -> None:
        """Take in a model that was loaded beside, waiting for it if need be; where memory ran out, keep the old set.

        One that cannot be loaded for another reason is left to `run`.
        """
        try:
            self._coming.pop(name).result()
        except ModelError as error:
            if not ran_out(error):
                return
            log.error("%s; keeping %s", error, ", ".join(self._before) or "no model")
            self._keep_old()
            return
        self.loads += 1
        self._loaded.append(name)

    def _model(self, name: str) -> Model:
        if name not in self._models:
            near = difflib.get_close_matches(name, self._models, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(self._models)}"
            raise ModelError(f'model "{name}" is not in this pool; {hint}')
        return self._models[name]

    def _check_fits(self, names: Sequence[str]) -> None:
        if self._excess_gb(names) > 0:
            each = ", ".join(f"{name} {self.memory_gb(name):.2f}" for name in names)
            if len(names) == 1:
                raise ModelError(f"model {each} GB exceeds the memory budget of {self._budget_gb:.2f} GB by itself")
            raise ModelError(f"models ({each} GB) exceed the memory budget of {self._budget_gb:.2f} GB together")

    def _excess_gb(self, names: Sequence[str]) -> float:
        if self._budget_gb is None:
            return 0.0
        return sum(self.memory_gb(name) for name in names) - self._budget_gb - _ROUNDING_GB

    def _make_room_for(self, name: str) -> None:
        """Unload guests, then the least recently used of the others, until ``name`` fits."""
        if name in self._loaded or name in self._coming or self._budget_gb is None:
            return
        room = self._budget_gb - self.memory_gb(name) + _ROUNDING_GB
        for other in sorted(
            [*self._loaded, *self._coming], key=lambda loaded: loaded in self._wanted
        ):  # stable: keeps use order
            if self.loaded_gb <= room:
                return
            self._unload(other)

    def _load(self, name: str) -> None:
        if name in self._coming:
            self._arrive(name)
        if name in self._loaded:
            self._loaded.remove(name)
        else:
            self._load_anew(name)
            self.loads += 1
            log.debug("model %s loaded", name)
        self._loaded.append(name)

    def _load_anew(self, name: str) -> None:
        """Load; where memory runs out, give back what was taken, and do not try again before the next decision.

        What cannot be loaded for another reason is told of once, and not tried again for `RETRY_S` either: it may take
        long to fail.
        """
        if name in self._too_large:
            raise ModelError(self._too_large[name])
        why, again_s = self._broken.get(name, ("", 0.0))
        if self._clock() < again_s:
            raise ModelError(why)
        try:
            self._models[name].load()
            self._broken.pop(name, None)
        except Exception as error:
            if not ran_out(error):
                if name not in self._broken:
                    log.error("%s; frames are to do without %s", _told(name, error), name)
                self._broken[name] = (_told(name, error), self._clock() + RETRY_S)
                _raise_model_error(name, error)
            self._models[name].unload()
            self._too_large[name] = f'model "{name}": out of memory while loading it'
            raise ModelError(self._too_large[name]) from error

    def _unload(self, name: str) -> None:
        if name in self._coming:
            self._arrive(name)
        if name not in self._loaded:
            return  # it was coming, and memory ran out
        self._models[name].unload()
        self._loaded.remove(name)
        log.debug("model %s unloaded", name)

    def _halve_batch(self, name: str, size: int, error: Exception) -> None:
        """Remember a smaller batch for ``name``; raise `ModelError` if it was not memory, or at size 1."""
        if not ran_out(error):
            _raise_model_error(name, error)
        if size == 1:
            raise ModelError(
                f'model "{name}": out of memory on a single frame; lower the memory budget or give it a smaller input'
            ) from error
        self._batch[name] = size // 2
        log.warning("model %s: out of memory with %d frames; batches of %d from now on", name, size, size // 2)


def _raise_model_error(name: str, error: Exception) -> NoReturn:
    if isinstance(error, ModelError):
        raise error
    raise ModelError(_told(name, error)) from error


def _told(name: str, error: Exception) -> str:
    return str(error) if isinstance(error, ModelError) else f'model "{name}": {type(error).__name__}: {error}'
