"""Decoding: passes independent of depth, masks that shrink, rows alone, and an exact toy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.recipes.resgen import flattened, network
from mtjax.recipes.resgen.decode import Decoding, generate, masks_after
from mtjax.recipes.resgen.loss import resgen_loss
from mtjax.recipes.resgen.mixture import Mixture
from mtjax.recipes.resgen.network import ResGenConfig
from mtjax.recipes.resgen.quantizer import ResidualQuantizer

LENGTH, WIDTH, CODES = 3, 2, 4


def books(depth):
  """Codebooks whose depths do not meddle: each is a tenth of the one above."""
  book = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
  return ResidualQuantizer(jnp.stack([book * 0.1**d for d in range(depth)]))


def certain(quantizer, target):
  """Returns a network that knows the codes: one sharp Gaussian at what is masked of them."""
  calls = []

  def predict(known, counts, label):
    jax.debug.callback(lambda: calls.append(1))
    mean = quantizer.embed(target, quantizer.depth - counts)
    shape = (*counts.shape, 1)
    return Mixture(jnp.zeros(shape), mean[..., None, :], jnp.full(shape, -9.0))

  return predict, calls


def rows(count, seed=0):
  return jax.random.split(jax.random.key(seed), count), jnp.zeros((count,), jnp.int32)


def decode(predict, quantizer, count, settings):
  plan = settings.plan(LENGTH * quantizer.depth)
  return generate(predict, quantizer, *rows(count), plan, length=LENGTH)


@pytest.mark.parametrize("depth", [2, 4, 8])
def test_the_passes_are_the_steps_whatever_the_depth(depth):
  quantizer = books(depth)
  target = jax.random.randint(jax.random.key(1), (2, LENGTH, depth), 0, CODES)
  predict, calls = certain(quantizer, target)
  run = jax.jit(functools.partial(generate, predict, quantizer, length=LENGTH))
  for steps in (5, 2):
    calls.clear()
    made = jax.block_until_ready(run(*rows(2), Decoding(steps).plan(LENGTH * depth, 5)))
    jax.effects_barrier()
    assert len(calls) == int(made.forwards) == steps
  assert run._cache_size() == 1, "another number of steps was compiled"
  if depth < 8:  # at depth 8 a code is smaller than the noise of the Gaussian
    np.testing.assert_array_equal(made.tokens, target)


@pytest.mark.parametrize("steps", [1, 2, LENGTH * 2])
def test_a_network_that_knows_the_codes_makes_them_in_one_step_or_many(steps):
  quantizer = books(2)
  target = jax.random.randint(jax.random.key(2), (4, LENGTH, 2), 0, CODES)
  predict, _ = certain(quantizer, target)
  settings = Decoding(steps, order_noise=float("inf"))
  made = decode(predict, quantizer, 4, settings)
  np.testing.assert_array_equal(made.tokens, target)
  counts = np.asarray(made.counts)
  assert (counts.sum(-1) == masks_after(steps, LENGTH * 2)[:, None]).all()
  assert (np.diff(counts, axis=0) <= 0).all() and not counts[-1].any()


def test_the_check_sees_a_network_that_knows_other_codes():
  quantizer = books(2)
  target = jnp.ones((1, LENGTH, 2), jnp.int32)
  predict, _ = certain(quantizer, target.at[0, 0, 1].set(2))
  made = decode(predict, quantizer, 1, Decoding(2))
  assert (np.asarray(made.tokens) != np.asarray(target)).sum() == 1


def test_confident_positions_come_first():
  quantizer = books(2)
  target = jnp.ones((1, LENGTH, 2), jnp.int32)
  plain, _ = certain(quantizer, target)

  def predict(*arguments):
    mixture = plain(*arguments)
    return mixture.replace(log_scale=mixture.log_scale + jnp.array([[[1.0], [0.0], [2.0]]]))

  made = decode(predict, quantizer, 1, Decoding(6))
  counts = np.asarray(made.counts)[:, 0]
  assert counts.tolist()[:4] == [[2, 1, 2], [2, 0, 2], [1, 0, 2], [0, 0, 2]]


def test_depths_of_one_position_agree_with_each_other():
  """Two equal Gaussians at the sums (1, 1) and (2, 2): one step makes no (1, 2) or (2, 1).

  This is what one vector for all depths is for. Codes sampled per depth would mix the two.
  """
  quantizer = books(2)
  pair = jnp.stack([quantizer.embed(jnp.full((2,), code)) for code in (1, 2)])

  def predict(known, counts, label):
    shape = (*counts.shape, 2)
    return Mixture(jnp.zeros(shape), jnp.broadcast_to(pair, (*shape, 2)), jnp.full(shape, -5.0))

  made = decode(predict, quantizer, 200, Decoding(1))
  tokens = np.asarray(made.tokens).reshape(-1, 2)
  assert (tokens[:, 0] == tokens[:, 1]).all()
  share = (tokens[:, 0] == 1).mean()
  assert set(tokens[:, 0].tolist()) == {1, 2} and abs(share - 0.5) < 4 * 0.5 / len(tokens) ** 0.5


SIZES = ResGenConfig(
  classes=3, length=LENGTH, depth=2, codes=CODES, width=WIDTH, components=2, dim=8, layers=1,
  heads=2, mlp_dim=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def params():
  return network.init_params(SIZES, jax.random.key(0))


def test_a_row_does_not_depend_on_the_rows_beside_it(params):
  predict = functools.partial(network.predict, SIZES, params)
  plan = Decoding(3, order_noise=2.0).plan(LENGTH * 2)
  keys, _ = rows(4, seed=3)
  label = jnp.array([0, 1, 2, 0])
  run = functools.partial(generate, predict, books(2), plan=plan, length=LENGTH)
  together = run(keys, label)
  alone = run(keys[2:3], label[2:3])
  np.testing.assert_array_equal(together.tokens[2], alone.tokens[0])
  assert (np.asarray(together.tokens[2]) != np.asarray(together.tokens[0])).any()


def test_the_network_sees_the_class_the_known_sums_and_the_depth(params):
  known = jnp.ones((1, LENGTH, WIDTH))
  counts = jnp.ones((1, LENGTH), jnp.int32)
  label = jnp.zeros((1,), jnp.int32)
  base = network.predict(SIZES, params, known, counts, label)
  assert base.logits.shape == (1, LENGTH, 2) and base.mean.shape == (1, LENGTH, 2, WIDTH)
  assert np.exp(base.log_scale).min() > SIZES.min_scale
  others = (
    (known.at[0, 0].add(1.0), counts, label),
    (known, counts.at[0, 0].set(2), label),
    (known, counts, label + 1),
  )
  for inputs in others:
    changed = network.predict(SIZES, params, *inputs)
    assert np.abs(np.asarray(changed.mean - base.mean))[0, -1].max() > 1e-6


def test_training_lowers_the_losses_of_both_models(params):
  quantizer = books(2)
  tokens = jnp.tile(jnp.array([[[1, 2], [2, 1], [3, 3]]]), (8, 1, 1))
  label = jnp.zeros((8,), jnp.int32)

  def mixture_loss(params):
    return resgen_loss(SIZES, quantizer, params, tokens, label, jax.random.key(1))

  def code_loss(params):
    return flattened.flattened_loss(SIZES, params, tokens, label)

  causal = flattened.flattened_model(SIZES).init(jax.random.key(0))
  for loss, start in ((mixture_loss, params), (code_loss, causal)):
    step = jax.jit(jax.value_and_grad(loss))
    now, losses = start, []
    for _ in range(25):
      value, grads = step(now)
      now = jax.tree.map(lambda p, g: p - 0.05 * g, now, grads)
      losses.append(float(value))
    assert np.isfinite(losses).all() and losses[-1] < losses[0] - 0.5


def test_the_autoregressive_decoder_samples_what_its_loss_scores():
  """The cached decoder agrees with the whole sequence: the loss of its codes is that of a sample.

  The network repeats one row after training, so its samples are that row.
  """
  tokens = jnp.array([[[1, 2], [0, 1], [3, 3]]])
  label = jnp.array([1])
  params = flattened.flattened_model(SIZES).init(jax.random.key(0))
  step = jax.jit(jax.grad(lambda p: flattened.flattened_loss(SIZES, p, tokens, label)))
  for _ in range(200):
    params = jax.tree.map(lambda p, g: p - 0.2 * g, params, step(params))
  assert flattened.flattened_loss(SIZES, params, tokens, label) < 0.02
  made = flattened.flattened_generate(
    SIZES, params, jax.random.key(5), jnp.tile(label, 3), temperature=0.5
  )
  np.testing.assert_array_equal(made, jnp.tile(tokens, (3, 1, 1)))


def test_the_plan_unmasks_in_every_step_and_ends_with_nothing():
  for total in (1, 7, 64):
    for steps in range(1, total + 1):
      plan = [total, *masks_after(steps, total)]
      assert (np.diff(plan) < 0).all() and plan[-1] == 0
  assert masks_after(4, 100).tolist() == [93, 71, 39, 0]


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: masks_after(7, 6), "steps must be 1 to the number of codes, 6, got 7"),
    (lambda: Decoding(3).plan(6, 2), "a plan of 3 steps does not fit a size of 2"),
    (lambda: Decoding(0), "steps must be at least 1, got 0"),
    (lambda: Decoding(1, order_noise=-1), "order_noise must not be negative, got -1"),
    (lambda: Decoding(1, temperature=float("nan")), "temperature must not be negative, got nan"),
    (lambda: ResGenConfig(10, 3, 2, 4, 2, 0), "components must be above 0, got 0"),
    (
      lambda: ResGenConfig(10, 3, 2, 4, 2, 2, dim=12, heads=4),
      r"dim must be a multiple of 2 \* heads = 8, got 12",
    ),
    (
      lambda: flattened.flattened_generate(
        SIZES, {}, jax.random.key(0), jnp.zeros((1,), jnp.int32), temperature=0.0
      ),
      "temperature must be above 0, got 0",
    ),
  ],
)
def test_settings_that_mean_nothing_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
