"""Constraints on blanks: the distribution of every method, enumerated, and what is refused."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.anysubset import Confidence, Eso, SlidingWindow, fill, make_canvas
from mtjax.anysubset.filling import passes
from mtjax.anysubset.filling.constrained import constraint_of
from mtjax.anysubset.filling.methods import ContextNGram, DraftOnce, Fused, SelfDraft, Sequential
from mtjax.models import Model, uniform_layers
from mtjax.sampling.logits import Sampling, row_keys
from tests.anysubset import enumerate_fill
from tests.anysubset.enumerate_fill import distribution_of
from tests.anysubset.table_network import TableNetwork, conditional, random_tables
from tests.anysubset.test_fill_distributions import distance, make_problem
from tests.constraints.toys import complete_texts, dfa_of

VOCAB, LENGTH = 2, 6
CONTEXT = {2: 1}
BLANKS = ((0, 1), (3, 4, 5))
ORDER = (4, 0, 5, 3, 1)
# 01 or 10; and zeros that are followed by at least one 1.
DFAS = [
  dfa_of([{0: 1, 1: 2}, {1: 3}, {0: 3}, {}], {3}, VOCAB),
  dfa_of([{0: 0, 1: 1}, {1: 1}], {1}, VOCAB),
]
NETWORK = TableNetwork(VOCAB, LENGTH)
TABLES = random_tables(np.random.default_rng(1), VOCAB, LENGTH, scale=1.5)
METHODS = [
  Sequential(),
  SelfDraft(3),
  SelfDraft(3, bonus=False),
  Fused(2),
  DraftOnce(3),
  ContextNGram(2),
  Fused(3, verifier="block"),
]


def accepted_texts(dfas=DFAS, end=None):
  """Returns the accepted texts as {position: token}, by trying all; end tokens may follow them."""

  def fits(dfa, tokens):
    size = tokens.index(end) if end in tokens else len(tokens)
    return set(tokens[size:]) <= {end} and dfa.accepts(tokens[:size])

  texts = []
  for tokens in itertools.product(range(VOCAB), repeat=5):
    text = dict(zip((*BLANKS[0], *BLANKS[1]), tokens, strict=True))
    if all(fits(dfa, [text[i] for i in b]) for dfa, b in zip(dfas, BLANKS, strict=True)):
      texts.append(text)
  return texts


def restricted_probs(order, texts=None):
  """Returns {tokens in the order: probability}: every conditional over what can be completed."""
  texts, out = texts or accepted_texts(), {}

  def go_on(chance, decided):
    if len(decided) == len(order):
      out[tuple(x for _, x in decided)] = chance
      return
    place = order[len(decided)]
    fits = {t[place] for t in texts if all(t[i] == x for i, x in decided)}
    p = conditional(TABLES, CONTEXT, decided, place)
    p = {x: p[x] for x in fits}
    for x in fits:
      go_on(chance * p[x] / sum(p.values()), [*decided, (place, x)])

  go_on(1.0, [])
  return out


def constrained_problem():
  problem = make_problem(ORDER, CONTEXT)
  constraint = constraint_of([DFAS], problem.canvas, LENGTH, VOCAB, ())
  return problem.replace(constraint=constraint)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_distribution_is_the_product_of_the_restricted_conditionals(method):
  distribution = distribution_of(method, NETWORK, TABLES, constrained_problem())
  expected = restricted_probs(ORDER)
  assert set(distribution.chance) <= set(expected)
  assert distance(distribution.chance, expected) < 1e-12
  assert max(distribution.passes) <= len(ORDER)


# Zeros: at most two, and one or three; then end tokens, which are the ones.
ENDING_DFAS = [
  dfa_of([{0: 1}, {0: 2}, {}], {0, 1, 2}, VOCAB),
  dfa_of([{0: 1}, {0: 2}, {0: 3}, {}], {1, 3}, VOCAB),
]


@pytest.mark.parametrize("method", [SelfDraft(3), Fused(2)], ids=str)
def test_texts_that_end_early_have_the_product_of_the_restricted_conditionals(method):
  """This is how a prompt is continued with a constraint: drafts and end tokens in any order."""
  problem = make_problem(ORDER, CONTEXT)
  constraint = constraint_of([ENDING_DFAS], problem.canvas, LENGTH, VOCAB, (1,))
  problem = problem.replace(constraint=constraint)
  distribution = distribution_of(method, NETWORK, TABLES, problem)
  texts = accepted_texts(ENDING_DFAS, end=1)
  assert len(texts) == 6
  assert distance(distribution.chance, restricted_probs(ORDER, texts)) < 1e-12
  # The control: what is accepted without a view to the end of a blank is distributed otherwise.
  assert distance(distribution.chance, restricted_probs(ORDER)) > 1e-3


def test_the_enumeration_notices_drafts_that_are_verified_without_the_constraint(monkeypatch):
  enumerate_fill.forget_programs()
  monkeypatch.setattr(passes, "restrict_along", lambda constraint, logits, *others: logits)
  distribution = distribution_of(Fused(2), NETWORK, TABLES, constrained_problem())
  assert distance(distribution.chance, restricted_probs(ORDER)) > 1e-3
  enumerate_fill.forget_programs()


END = 2  # of the tiny model's three tokens
ENDING = dfa_of([{0: 1}, {1: 0}], {0, 1}, 3)  # 0, 1, 0, 1, ... of any length
ALL_METHODS = [SelfDraft(3), Confidence(per_pass=3), SlidingWindow(4, 0.4), Eso(2, 0.7)]


@pytest.mark.parametrize("method", ALL_METHODS, ids=str)
def test_every_blank_of_every_row_is_accepted(tiny, method):
  model, params = tiny
  rows = 24
  is_target = np.tile([[False, True, True, True, True, False, True, True]], (rows, 1))
  canvas = make_canvas(model.config, np.ones_like(is_target, int), is_target)
  exact = dfa_of([{0: 1, 2: 1}, {1: 2}, {}], {2}, 3)  # 01 or 21
  free = None
  constraint = [[ENDING, exact] if row % 2 else free for row in range(rows)]
  filled = fill(
    model, params, canvas, method=method, constraint=constraint, key=3,
    sampling=Sampling(temperature=1.0, top_k=1),
  )  # fmt: skip
  first, second = filled.token[:, 2:6].tolist(), filled.token[:, 7:9].tolist()
  fits = [ENDING.accepts(a) and exact.accepts(b) for a, b in zip(first, second, strict=True)]
  assert all(fits[1::2]) and not all(fits[::2])


@pytest.mark.parametrize(
  "method",
  [Sequential(), pytest.param(SlidingWindow(4, 0.4), marks=pytest.mark.slow), Eso(2, 0.7)],
  ids=str,
)
def test_a_text_ends_early_and_its_row_with_it(tiny, method):
  model, params = tiny
  # The first half has a constraint, and the second has the same keys without one.
  is_target = np.tile([[False, *[True] * 5]], (48, 1))
  canvas = make_canvas(model.config, np.ones_like(is_target, int), is_target)
  keys = jnp.tile(row_keys(5, 24), 2)
  settings = dict(method=method, sampling=Sampling(temperature=1.0), key=keys)
  filled = fill(
    model, params, canvas, constraint=[ENDING] * 24 + [None] * 24, eos=[END], **settings
  )
  texts = {text[: text.index(END) + 1] if END in text else text
           for text in complete_texts(ENDING, 5, 3, END)}  # fmt: skip
  sizes = set()
  for row in range(24):
    text = tuple(filled.token[row, 2:].tolist())
    text = text[: text.index(END) + 1] if END in text else text
    assert text in texts and (filled.decided_at[row, 2 : 2 + len(text)] > 0).all()
    sizes.add(len(text))
  assert len(sizes) > 1
  # A row that ends early has the same tokens, up to its end token, as one that does not end.
  whole = fill(model, params, canvas, **settings)
  token, forwards = filled.token[24:], filled.forwards[24:]
  np.testing.assert_array_equal(
    np.where(filled.decided_at[24:] > 0, token, whole.token[24:]), whole.token[24:]
  )
  assert (forwards <= whole.forwards[24:]).all() and forwards.sum() < whole.forwards[24:].sum()


@pytest.mark.parametrize("eos", [(), (0,)], ids=["exact", "ending"])
@pytest.mark.parametrize("method", ALL_METHODS, ids=str)
def test_a_text_that_needs_the_mask_is_no_way_to_complete_a_blank(tiny, method, eos):
  """The mask is a token of the vocabulary, and a pattern such as "." fits it, too."""
  mask = 2
  config = dataclasses.replace(
    tiny[0].config,
    layers=uniform_layers(1),
    extra_embeddings=1,
    extra_names=("sink",),
    mask_id=mask,
  )
  model, rows = Model(config), 24
  params = model.init(jax.random.key(0))
  is_target = np.tile([[False, True, True]], (rows, 1))
  canvas = make_canvas(config, np.ones_like(is_target, int), is_target)
  # 11, 12 and 02: no mask may follow a 0.
  dfa = dfa_of([{0: 1, 1: 2}, {mask: 3}, {1: 3, mask: 3}, {}], {3}, 3)
  filled = fill(
    model, params, canvas, method=method, constraint=dfa, key=3, eos=eos,
    sampling=Sampling(temperature=1.0), history=True,
  )  # fmt: skip
  assert (filled.token[:, 2:] == 1).all()
  own = [one for record in filled.history for row in record.rows for one in row or ()]
  assert np.isfinite([x for one in own for x in one.log_probs]).all()
  with pytest.raises(ValueError, match="no text"):
    only = dfa_of([{mask: 1}, {mask: 2}, {}], {2}, 3)
    fill(model, params, canvas, method=method, constraint=only, eos=eos)


@pytest.mark.parametrize(
  ("constraint", "settings", "message"),
  [
    ([DFAS], {}, "the constraint of row 0 has 2 values, and the row has 1 blanks"),
    ([ENDING, ENDING], {}, "constraint has 2 values for a batch of 1 rows"),
    (
      dfa_of([{0: 1}, {1: 2}, {0: 0}], {2}, 3),
      {},
      "blank 1 has 3 tokens, and its constraint accepts no text of exactly so many: those it "
      "accepts have 2, 5, 8, 11, 14 tokens",
    ),
    (
      dfa_of([{0: 1}, {0: 2}, {0: 3}, {0: 4}, {}], {4}, 3),
      dict(eos=[END]),
      "the shortest text that its constraint accepts has 4: give it more tokens",
    ),
    (
      ENDING,
      dict(sampling=Sampling(logit_bias={0: -np.inf})),
      r"bans the tokens \[0\]",
    ),
  ],
)
def test_what_cannot_be_is_refused(tiny, constraint, settings, message):
  model, params = tiny
  canvas = make_canvas(model.config, np.ones((1, 4), int), np.array([[False, True, True, True]]))
  with pytest.raises(ValueError, match=message):
    fill(model, params, canvas, constraint=constraint, **settings)


def test_conditionals_of_a_blank_are_renormalised_at_the_temperature(tiny):
  """A chi-square on the jitted path, in an order that is not ascending."""
  model, params = tiny
  rows, order = 4000, [3, 1, 2]
  exact = dfa_of([{0: 1, 1: 1, 2: 2}, {2: 3, 0: 3}, {1: 3}, {0: 4, 1: 4}, {}], {4}, 3)
  is_target = np.tile([[False, True, True, True]], (rows, 1))
  canvas = make_canvas(model.config, np.ones_like(is_target, int), is_target)
  rank = np.zeros(canvas.token.shape, int)
  rank[:, [place + 1 for place in order]] = [1, 2, 3]
  found = [
    fill(
      model, params, canvas, method=method, constraint=exact, key=7, rank=rank,
      sampling=Sampling(temperature=1.0),
    ).token[:, 2:] @ [9, 3, 1]
    for method in (Sequential(), SelfDraft(3))
  ]  # fmt: skip
  counts = [np.bincount(one, minlength=27) for one in found]
  texts = [9 * a + 3 * b + c for a, b, c in itertools.product(range(3), repeat=3)
           if exact.accepts([a, b, c])]  # fmt: skip
  assert all(count[texts].sum() == rows for count in counts)
  # Two samples of one distribution: each cell's difference is within its noise.
  one, two = (count[texts].astype(float) for count in counts)
  chi = ((one - two) ** 2 / np.maximum(one + two, 1)).sum()
  assert chi < 3 * len(texts) + 20


def test_the_last_entry_of_a_refused_draft_is_never_read(tiny):
  """All tokens are allowed where nothing can be completed, so that logits stay finite."""
  problem = constrained_problem()
  token = jnp.zeros((1, LENGTH), jnp.int32)
  known = jnp.zeros((1, LENGTH), bool).at[0, jnp.array([0, 1])].set(True)  # 00 fits nothing
  allowed = jax.jit(problem.constraint.allowed)(token, known, jnp.array([[0, 4]]))
  assert np.asarray(allowed[0, 0]).tolist() == [False, True]
  assert jax.numpy.all(allowed[0, 1])
