"""Sequence links: all learn what is there, write nothing behind an end token, and padding never matters."""

import numpy as np
import pytest
import torch

from camlink.links.seq_to_seq import SeqToSeq
from camlink.links.seq_to_vec import SeqToVec
from camlink.links.tokens import END, lengths, real_steps, sequence_loss
from camlink.links.vec_to_seq import VecToSeq
from camlink.models.base import OutputSpec
from camlink.models.scores import agreement
from camlink.pipeline.errors import LinkError

RNG = np.random.default_rng(4)
WORDS, STEPS = 6, 5
CAPTION = OutputSpec("caption", "sequence", WORDS, "tokens", max_steps=STEPS)
LABEL = OutputSpec("label", "vector", WORDS, "multi_label")


def captions(count: int) -> np.ndarray:
    tokens = RNG.integers(1, WORDS, (count, STEPS))
    tokens[np.arange(STEPS) >= RNG.integers(1, STEPS + 1, count)[:, None]] = END
    return tokens


def mentioned(tokens: np.ndarray) -> np.ndarray:
    """Which words occur: (n, steps) -> (n, words)."""
    seen = np.zeros((len(tokens), WORDS), np.float32)
    np.put_along_axis(seen, tokens, 1.0, axis=1)
    seen[:, END] = 0.0
    return seen


def test_lengths_and_real_steps_stop_at_the_first_end() -> None:
    tokens = torch.tensor([[3, 2, END, 4], [END, 1, 1, 1], [1, 1, 1, 1]])
    assert lengths(tokens).tolist() == [2, 0, 4]
    assert real_steps(tokens).tolist() == [[True] * 3 + [False], [True] + [False] * 3, [True] * 4]


def test_the_loss_ignores_padding() -> None:
    tokens, scores = torch.tensor([[2, END, END, END]]), torch.randn(1, 4, WORDS)
    other = scores.clone()
    other[:, 2:] += 7 * torch.randn(1, 2, WORDS)
    assert float(sequence_loss(scores, tokens)) == pytest.approx(float(sequence_loss(other, tokens)))


@pytest.mark.slow
def test_seq_to_vec_learns_which_words_occur_and_padding_has_no_say() -> None:
    tokens = captions(400)
    link = SeqToVec(CAPTION, LABEL, seed=0)
    link.fit(tokens[:300], mentioned(tokens[:300]), seed=0, epochs=60)
    z = link.predict(tokens[300:])
    assert ((z > 0) == (mentioned(tokens[300:]) > 0.5)).mean() > 0.93
    longer = OutputSpec("caption", "sequence", WORDS, "tokens", max_steps=STEPS + 3)
    link.source = longer
    garbage = np.concatenate([tokens[300:], RNG.integers(1, WORDS, (100, 3))], axis=1)
    ended = (tokens[300:] == END).any(axis=1)
    np.testing.assert_allclose(link.predict(garbage)[ended], z[ended], atol=1e-5)


@pytest.mark.slow
def test_vec_to_seq_writes_and_ends() -> None:
    """The label vector says how often word 1 is to be written before the end."""
    count = RNG.integers(0, STEPS + 1, 300)
    x = np.eye(STEPS + 1, dtype=np.float32)[count]
    tokens = (np.arange(STEPS) < count[:, None]).astype(np.int64)
    link = VecToSeq(OutputSpec("label", "vector", STEPS + 1, "single_label"), CAPTION, seed=0)
    link.fit(x[:200], tokens[:200], seed=0, epochs=40)
    np.testing.assert_array_equal(link.predict(x[200:]), tokens[200:])


@pytest.mark.slow
def test_seq_to_seq_translates_word_by_word() -> None:
    tokens = captions(900)
    swapped = np.where(tokens == END, END, WORDS - tokens)
    link = SeqToSeq(CAPTION, CAPTION, seed=0)
    link.fit(tokens[:800], swapped[:800], seed=0, epochs=60)
    said = link.predict(tokens[800:])
    assert agreement(CAPTION, said, swapped[800:]).mean() > 0.9
    behind = np.cumsum(said == END, axis=1) > 1
    assert (said[behind] == END).all()


def test_the_same_seed_gives_the_same_link() -> None:
    tokens = captions(40)
    one, two = SeqToSeq(CAPTION, CAPTION, seed=3), SeqToSeq(CAPTION, CAPTION, seed=3)
    for link in (one, two):
        link.fit(tokens, tokens, seed=5, epochs=2)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("broken", [np.full((3, STEPS), WORDS), np.full((3, STEPS), 0.5), np.zeros((3, STEPS + 1))])
def test_wrong_tokens_raise_with_the_models_name(broken: np.ndarray) -> None:
    with pytest.raises(LinkError, match='tokens of "caption"'):
        SeqToVec(CAPTION, LABEL, seed=0).predict(broken)
    with pytest.raises(LinkError, match='values of "label"'):
        VecToSeq(LABEL, CAPTION, seed=0).predict(np.full((2, WORDS), np.nan, np.float32))


@pytest.mark.parametrize(("here", "there"), [(0, 0), (3, 2), (2, 3)])
def test_samples_that_do_not_belong_together_are_refused(here: int, there: int) -> None:
    tokens, vectors = captions(here), mentioned(captions(there))
    for fit in (
        lambda: SeqToVec(CAPTION, LABEL, seed=0).fit(tokens, vectors, seed=0, epochs=1),
        lambda: VecToSeq(LABEL, CAPTION, seed=0).fit(vectors, tokens, seed=0, epochs=1),
        lambda: SeqToSeq(CAPTION, CAPTION, seed=0).fit(tokens, captions(there), seed=0, epochs=1),
    ):
        with pytest.raises(LinkError, match="needs samples, as many of one as of the other"):
            fit()


def test_agreement_is_one_minus_the_word_error_rate() -> None:
    wanted = np.array([[1, 2, 3, END, END]])
    for said, score in (
        ([1, 2, 3, END, END], 1.0),
        ([1, 3, END, END, END], 2 / 3),  # one word missing
        ([1, 2, 4, END, END], 2 / 3),  # one replaced
        ([1, 2, 2, 3, END], 2 / 3),  # one too many
        ([4, 4, 4, 4, 4], 0.0),
    ):
        assert float(agreement(CAPTION, np.array([said]), wanted)[0]) == pytest.approx(score)
    nothing = np.full((1, STEPS), END)
    assert float(agreement(CAPTION, nothing, nothing)[0]) == 1.0
    assert float(agreement(CAPTION, wanted, nothing)[0]) == 0.0
