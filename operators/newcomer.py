"""What a new camera makes of a zoo: it starts from those cameras that its own first outputs say it resembles.

Empirical Bayes, model by model and pair by pair, with the constant priors as one more candidate beside the cameras:

    P(candidate | outputs) ~ P(candidate) * P(outputs so far | candidate)

- **Freshness.** Each candidate is a Gaussian over the parameters: the constant prior, or a zoo camera's with what is
  unknown of them and how far cameras differ as its variance. The evidence is that of a Gaussian expansion of the
  likelihood (Laplace). The mixture's mean and spread become the prior, anew with each fit while samples are few.
- **Links.** Each camera's tables count as `FRAMES` frames. The evidence is that of a Dirichlet-multinomial on what the
  new camera's own tables hold so far, tempered since neighbouring frames are alike. The tables are added once, when the
  policy is first asked, by what the candidates have come to; they fade as everything else in them does. The weights of
  the tables begin where the weights of those cameras ended.

So where the zoo is of other scenes, the constant priors keep the upper hand and little is lost.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from math import lgamma

import numpy as np
from numpy.typing import NDArray

from camlink.operators.freshness import PRIOR, SPREAD, Freshness
from camlink.operators.known_model import KnownModel
from camlink.operators.link_evidence import LinkEvidence
from camlink.operators.link_loops import TRUST
from camlink.operators.recalibration import FIRST
from camlink.operators.zoo import Array, Experience, PairExperience, Zoo

FRAMES = 20.0  # that a zoo's tables count as
TEMPER = 0.2  # of the evidence of tables: about one frame in five tells something new
CANDOUR = 0.3  # the same of the samples of freshness, of which each frame gives several
UNSURE = 4.0  # cameras that the constant priors count as
DIFFER = 1.0  # how far these differ from the others, in constant spreads
ENOUGH = 300  # samples of freshness from which on they speak for themselves
_LEAST, _TINY = 1e-3, 1e-12
logger = logging.getLogger(__name__)


class Newcomer:
    """One new camera before a zoo."""

    def __init__(self, zoo: Zoo, camera_id: str) -> None:
        self._camera_id = camera_id
        self._cameras = zoo.cameras
        self._before = np.log([UNSURE] + [1.0] * len(zoo.cameras))
        self._candidates = {name: _candidates(zoo.cameras, name) for name in zoo.specs}
        self.settled = False  # what is taken over once, has been
        self._likeness: dict[str, Array] = {}  # of each model's freshness: to the constant priors, and to each camera

    def start(self, models: Mapping[str, KnownModel], links: LinkEvidence | None, steps: int) -> None:
        """Put what was learnt so far on what other cameras have learnt, as far as these are alike.

        ``steps``: of fitting freshness to that.
        """
        for name, model in models.items():
            if self.centre(name, model.freshness):
                model.freshness.fit(steps)
        if not self.settled:
            self.settle(models, links)

    def centre(self, name: str, freshness: Freshness) -> bool:
        """Give ``freshness`` of a model the prior that its samples so far speak for; say whether it is a new one."""
        if self.settled and freshness.samples > ENOUGH:
            return False
        means, spreads = self._candidates[name]
        evidence = _laplace(*freshness.told(), means, spreads) if freshness.samples else np.zeros(len(means))
        likeness = self._likeness[name] = _chances(self._before + CANDOUR * evidence)
        mean = likeness @ means
        off = means - mean
        spread = np.tensordot(likeness, spreads + off[:, :, None] * off[:, None, :], 1)
        freshness.start_from(mean, np.asarray(np.linalg.inv(spread), np.float64))
        return True

    def settle(self, models: Mapping[str, KnownModel], links: LinkEvidence | None) -> None:
        """Take over, once, what calibration and links begin from."""
        self.settled = True
        for name, model in models.items():
            known = np.array([camera.models[name].recalibration for camera in self._cameras])
            shift, slope = self._likeness[name] @ np.vstack([FIRST, known])
            model.recalibration.start_from(float(shift), float(slope))
        if links is not None:
            names = set(models)
            pairs = [
                p for p in self._cameras[0].pairs if names.issuperset(p) and all(p in c.pairs for c in self._cameras)
            ]
            alike = {pair: self._alike(links, pair, models[pair[1]].belief.usual) for pair in pairs}
            tables = {pair: _mixed(alike[pair][1:], [c.pairs[pair] for c in self._cameras]) for pair in pairs}
            links.start_from(tables, self._beginnings(alike))
        likeness = np.mean([self._likeness[name] for name in models], axis=0)
        most = int(likeness[1:].argmax())
        logger.info(
            'camera "%s": %.0f%% alike to cameras of the zoo, most to %s',
            *(self._camera_id, 100 * likeness[1:].sum(), self._cameras[most].camera_id),
        )

    def _alike(self, links: LinkEvidence, pair: tuple[str, str], usual: Array) -> Array:
        """Return how far each candidate's tables of ``pair`` are like those here (1 + cameras,)."""
        tables = [camera.pairs[pair].level for camera in self._cameras]
        return _chances(self._before + TEMPER * _tables(links.levels(*pair), tables, usual))

    def _beginnings(self, alike: Mapping[tuple[str, str], Array]) -> dict[tuple[str, ...], tuple[Array, float]]:
        """Return where the weights of each set of sources begin: where those of cameras alike have ended."""
        found = {}
        for target, *sources in self._cameras[0].pools:
            key, pairs = (target, *sources), [(source, target) for source in sources]
            if alike.keys() >= set(pairs) and all(key in camera.pools for camera in self._cameras):
                likeness = np.mean([alike[pair] for pair in pairs], axis=0)[1:]
                weights = np.array([camera.pools[key] for camera in self._cameras])
                found[key] = likeness @ weights / max(likeness.sum(), _TINY), float(likeness.sum())
        return found


def _candidates(cameras: tuple[Experience, ...], name: str) -> tuple[Array, Array]:
    """Return means (1 + cameras, 5) and covariances (1 + cameras, 5, 5) by each candidate, the constant prior first.

    A camera's covariance: what its own samples leave open, and between cameras, estimated as with `UNSURE` more.
    """
    known = [camera.models[name] for camera in cameras]
    means, constant = np.array([model.freshness for model in known]), np.diag(SPREAD**2)
    left_open = np.linalg.inv(np.array([model.certainty for model in known]) + np.linalg.inv(constant))
    off = means - means.mean(axis=0)
    between = (off.T @ off + UNSURE * DIFFER**2 * constant) / (len(known) - 1 + UNSURE)
    return np.vstack([PRIOR, means]), np.concatenate([constant[None], left_open + between])


def _laplace(theta: Array, slope: Array, curvature: Array, means: Array, spreads: Array) -> Array:
    """Return the log evidence (n,) of Gaussians over parameters for samples that say this around ``theta`` (5,).

    The log likelihood is taken to be slope . x - x . curvature . x / 2 at theta + x. ``means`` (n, 5), ``spreads``
    (n, 5, 5): covariances.
    """
    off, firm = theta - means, np.linalg.inv(spreads)
    held = np.einsum("nij,nj->ni", firm, off)
    posterior, pull = curvature + firm, slope - held
    reached = np.linalg.solve(posterior, pull[:, :, None])[:, :, 0]
    size = np.linalg.slogdet(firm)[1] - np.linalg.slogdet(posterior)[1]
    return np.asarray(0.5 * (size - (off * held).sum(axis=1) + (pull * reached).sum(axis=1)))


def _tables(own: Array, tables: list[Array], usual: Array) -> Array:
    """Return the log evidence (1 + tables,) of nothing, and of each table as `FRAMES` frames, for one's own counts.

    All (entries, source levels, levels), of any number of levels; mean over entries. Without a table, P(level) is
    ``usual`` (entries, levels).
    """
    shape = tuple(np.max([own.shape, *(table.shape for table in tables), (0, 0, usual.shape[1])], axis=0))
    common = _grown(usual + _LEAST, (shape[0], shape[2])) + _LEAST
    nothing = TRUST * np.broadcast_to((common / common.sum(axis=1, keepdims=True))[:, None, :], shape)
    counts = _grown(own, shape)
    told = [nothing, *(nothing + FRAMES * _grown(table, shape) for table in tables)]
    return np.asarray(np.array([_dirichlet(counts, base) for base in told]) / shape[0])


def _dirichlet(counts: Array, base: Array) -> float:
    """Return the log evidence of a Dirichlet-multinomial: ``counts`` (..., levels) where ``base`` was expected."""
    at = np.nonzero(counts)
    rows = np.nonzero(counts.sum(axis=-1))
    mine, theirs = counts.sum(axis=-1)[rows], base.sum(axis=-1)[rows]
    by_level = [lgamma(b + n) - lgamma(b) for n, b in zip(counts[at].tolist(), base[at].tolist(), strict=True)]
    by_row = [lgamma(b + n) - lgamma(b) for n, b in zip(mine.tolist(), theirs.tolist(), strict=True)]
    return sum(by_level) - sum(by_row)


def _mixed(weights: Array, known: list[PairExperience]) -> tuple[Array, Array, Array]:
    shape = tuple(np.max([pair.level.shape for pair in known], axis=0))
    level = sum(w * _grown(pair.level, shape) for w, pair in zip(weights, known, strict=True))
    apart, moved = (np.tensordot(weights, [vars(p)[name] for p in known], 1) for name in ("apart", "moved"))
    return FRAMES * np.asarray(level), FRAMES * apart, FRAMES * moved


def _grown(table: Array, shape: tuple[int, ...]) -> Array:
    """Return ``table`` with zeros up to ``shape``."""
    return np.pad(table, [(0, more - have) for have, more in zip(table.shape, shape, strict=True)])


def _chances(logs: Array) -> NDArray[np.float64]:
    found = np.exp(logs - logs.max())
    return np.asarray(found / found.sum())
