"""What every `Link` must keep to, as a function: run it over a link of your own before an ensemble weighs it."""

from __future__ import annotations

import numpy as np

from camlink.links.base import Array, Link
from camlink.pipeline.errors import LinkError

TOLERANCE = 1e-4  # float32 sums may differ in the last bits between batch sizes


def check_link(link: Link, batch: Array) -> None:
    """Assert the contract of `camlink.links.base.Link` on source values ``batch`` (n, source.size), n two or more.

    Raises `AssertionError` saying what is broken.
    """
    assert len(batch) >= 2, "give at least two values, so that their order can be checked"
    kept = batch.copy()
    out = link.predict(batch)
    assert out.shape == (len(batch), link.target.size), f"predict gave {out.shape}, wanted (n, {link.target.size})"
    assert out.dtype == np.float32, f"predict gave {out.dtype}, wanted float32"
    assert np.isfinite(out).all(), "predict gave values that are not finite"
    assert np.array_equal(batch, kept), "predict wrote into its input"
    assert np.array_equal(link.predict(batch), out), "two predictions of the same values differ"
    assert np.allclose(link.predict(batch[::-1]), out[::-1], atol=TOLERANCE), (
        "a value's prediction depends on its batch"
    )
    one = link.predict(batch[0])
    assert one.shape == (link.target.size,), f"one value gave {one.shape}, wanted ({link.target.size},)"
    assert np.allclose(one, out[0], atol=TOLERANCE), "one value alone is predicted otherwise than in a batch"
    _check_refusals(link, batch)
    _check_weights(link, batch, out)


def _check_refusals(link: Link, batch: Array) -> None:
    broken = batch.copy()
    broken[0, 0] = np.nan
    wide = np.concatenate([batch, batch[:, :1]], axis=1)
    for what, values in (("values that are not finite", broken), ("values of a wrong size", wide)):
        refusal = _refusal(link, values)
        assert refusal is not None, f"{what} are not refused with a LinkError"
        assert link.target.model in refusal, f"the error on {what} does not name the link: {refusal}"


def _refusal(link: Link, values: Array) -> str | None:
    try:
        link.predict(values)
    except LinkError as error:
        return str(error)
    return None


def _check_weights(link: Link, batch: Array, out: Array) -> None:
    weights = dict(link.weights())
    assert weights, "has no weights"
    again = link.replace_weights({name: value.copy() for name, value in weights.items()})
    assert np.allclose(again.predict(batch), out, atol=TOLERANCE), "the same weights predict otherwise"
    zeros = link.replace_weights({name: np.zeros_like(value) for name, value in weights.items()})
    assert np.allclose(link.predict(batch), out, atol=TOLERANCE), "replace_weights changed the link itself"
    assert np.ptp(zeros.predict(batch), axis=0).max() == 0.0, "weights do not decide what is predicted"
    name, value = next(iter(weights.items()))
    try:
        link.replace_weights({**weights, name: np.zeros((value.shape[0] + 1, *value.shape[1:]), np.float32)})
    except LinkError:
        return
    raise AssertionError("weights of a wrong shape are not refused with a LinkError")
