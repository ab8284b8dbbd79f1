"""From logits to the distribution that tokens are sampled from; decoders and verifiers share it."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from mtjax.arguments import Whole, Wholes, integer
from mtjax.display.short import short_repr
from mtjax.sampling.categorical import argmax, sample_categorical
from mtjax.sampling.constraint import Automata, Place
from mtjax.sampling.per_row import check_range, per_row
from mtjax.sampling.split_threshold import cut_by_parts
from mtjax.sharding import vocabulary
from mtjax.sharding.vocabulary import over_vocabulary

# One number, or one per row.
Values = (
  float | np.floating | Sequence[float | np.floating] | Shaped[np.ndarray | Array, "*B"] | None
)
# A seed, a key, or a key per row.
Seed = Whole | Key[Array, "*B"]
# The same, or a seed per row.
Seeds = Seed | Sequence[Whole]

_INT32 = jnp.iinfo(jnp.int32).max
_SEEDS = 2**64


class History(struct.PyTreeNode):
  """What penalties and constraints need of the text so far."""

  seen: Bool[Array, "B *N V"] | None  # tokens of the prompt or the output; None: no penalties
  generated: Bool[Array, "B *N V"] | None  # tokens of the output; None: no penalties
  place: Place | None = None  # of the output in the row's automaton; None: no constraint

  __repr__ = short_repr

  @classmethod
  def of_prompt(cls, prompt: Int[Array, "B P"], length: Int[Array, " B"], vocab: int) -> "History":
    """Returns the history of prompts of `length` tokens, before any output."""
    inside = jnp.arange(prompt.shape[1]) < length[:, None]
    rows = jnp.arange(prompt.shape[0])[:, None]
    empty = jnp.zeros((prompt.shape[0], vocab), bool)
    return cls(empty.at[rows, jnp.where(inside, prompt, vocab)].set(True, mode="drop"), empty)

  def add(
    self,
    token: Int[Array, "B P"],
    keep: Bool[Array, "B P"],
    constraint: Automata | None = None,
  ) -> "History":
    """Returns the history with those output tokens more that `keep` names.

    `constraint`: that of the rules, if `place` is not None.
    """
    after = self
    if self.seen is not None and self.generated is not None:
      rows = jnp.arange(token.shape[0])[:, None]
      kept = jnp.where(keep, token, self.seen.shape[-1])
      seen, generated = (
        x.at[rows, kept].set(True, mode="drop") for x in (self.seen, self.generated)
      )
      after = after.replace(seen=seen, generated=generated)
    if self.place is not None and constraint is not None:
      after = after.replace(place=constraint.follow(self.place, token, keep))
    return after


class Rules(struct.PyTreeNode):
  """Sampling settings as arrays, one value per row; None: the rule is not compiled in at all."""

  temperature: Float[Array, " B"] | None = None  # None or 0: greedy
  top_k: Int[Array, " B"] | None = None
  top_p: Float[Array, " B"] | None = None
  min_p: Float[Array, " B"] | None = None
  repetition_penalty: Float[Array, " B"] | None = None
  presence_penalty: Float[Array, " B"] | None = None
  logit_bias: Float[Array, "B V"] | None = None
  constraint: Automata | None = None

  __repr__ = short_repr

  @property
  def has_penalty(self) -> bool:
    """True if a penalty is set."""
    return self.repetition_penalty is not None or self.presence_penalty is not None

  @property
  def needs_history(self) -> bool:
    """True if a penalty or a constraint is set."""
    return self.has_penalty or self.constraint is not None

  @property
  def without_history(self) -> "Rules":
    """The rules without penalties and constraint: what drafts are sampled by."""
    return self.replace(repetition_penalty=None, presence_penalty=None, constraint=None)

  def start(
    self, prompt: Int[Array, "B P"], length: Int[Array, " B"], vocab: int, limit: Int[Array, " B"]
  ) -> History | None:
    """Returns the history before any output, for `limit` tokens at most; None if none is needed."""
    if not self.needs_history:
      return None
    history = History(None, None)
    if self.has_penalty:
      history = History.of_prompt(prompt, length, vocab)
    return history.replace(place=None if self.constraint is None else self.constraint.start(limit))


@dataclasses.dataclass(frozen=True)
class Sampling:
  """The settings by which tokens are sampled. A field is one number, or one number per row.

  temperature: 0 is greedy. top_k: keep the k most probable tokens (0: off). top_p: keep the
  smallest set of at least that mass (1: off; 1904.09751). min_p: keep tokens of at least min_p
  times the largest probability (0: off; 2407.01082). repetition_penalty: divides positive and
  multiplies negative logits of tokens seen in prompt or output (1: off; CTRL, 1909.05858).
  presence_penalty: is subtracted from logits of tokens already generated (0: off). logit_bias: a
  dict from token id to what is added to the token's logit in all rows.
  """

  temperature: Values = 0.0
  top_k: Wholes | None = None
  top_p: Values = None
  min_p: Values = None
  repetition_penalty: Values = None
  presence_penalty: Values = None
  logit_bias: dict[int, float] | None = None

  def rules(self, batch: int, vocab: int) -> Rules:
    """Returns the settings as arrays for a batch.

    Raises ValueError, with the setting's name, for a value out of its range.
    """
    return Rules(
      temperature=self._column("temperature", batch, 0.0, low=0.0),
      top_k=self._column("top_k", batch, 0, low=0, dtype=jnp.int32),
      top_p=self._column("top_p", batch, 1.0, low=0.0, high=1.0, open_low=True),
      min_p=self._column("min_p", batch, 0.0, low=0.0, high=1.0),
      repetition_penalty=self._column("repetition_penalty", batch, 1.0, low=0.0, open_low=True),
      presence_penalty=self._column("presence_penalty", batch, 0.0),
      logit_bias=self._bias(batch, vocab),
    )

  def check_no_ban(self) -> None:
    """Raises ValueError for tokens that logit_bias bans: a constraint may need them."""
    banned = [token for token, bias in (self.logit_bias or {}).items() if bias == -np.inf]
    if banned:
      raise ValueError(
        f"logit_bias bans the tokens {banned}, and the constraint may need them: leave them out of "
        "its pattern instead"
      )

  def _column(self, name, batch, off, *, low=None, high=None, open_low=False, dtype=jnp.float32):
    setting = getattr(self, name)
    if setting is None:
      return None
    values = per_row(setting, batch, name)
    check_range(values, name, low=low, high=high, open_low=open_low)
    if all(value == off for value in values):
      return None
    if dtype == jnp.int32:
      values = [min(integer(value, name), _INT32) for value in values]
    return jnp.asarray(values, dtype)

  def _bias(self, batch, vocab):
    if not self.logit_bias:
      return None
    wrong = [token for token in self.logit_bias if not 0 <= token < vocab]
    if wrong:
      raise ValueError(f"logit_bias has tokens {wrong}, which a vocabulary of {vocab} lacks")
    ids = jnp.asarray(list(self.logit_bias), jnp.int32)
    row = jnp.zeros((vocab,)).at[ids].set(jnp.asarray(list(self.logit_bias.values())))
    return jnp.broadcast_to(row, (batch, vocab))


def process(
  logits: Float[Array, "B N V"], rules: Rules, history: History | None = None
) -> Float[Array, "B N V"]:
  """Returns processed logits, which tokens are sampled from, in float32 at least.

  Removed tokens are -inf. The order is: bias, penalties, constraint, temperature, top-k, top-p (on
  what top-k left, renormalised), min-p. A greedy row keeps its argmax alone (the lowest id of
  equals), so sampling from the result is exact for greedy and sampled rows alike. Tokens that are
  equal to the last one kept are kept too. The argmax always stays.

  `history` is one per row, or one per node ([B, N, V]), because a draft is penalised for the tokens
  on its own path, and constrained by it. Raises ValueError when penalties or a constraint are set
  and it is missing.

  On a mesh each device processes its own tokens, and exchanges a few numbers per row.
  """
  return over_vocabulary(_process, logits, rules, history, roles=_roles(history), out="b.v")


def _process(logits, rules: Rules, history: History | None):
  logits = adjusted(logits, rules, history)
  best = vocabulary.tokens(logits) == argmax(logits)[..., None]
  only_best = jnp.where(best, 0.0, -jnp.inf)
  if rules.temperature is None:
    return only_best
  temperature = _column(rules.temperature)
  warm = _truncate(logits / jnp.where(temperature > 0, temperature, 1.0), rules)
  return jnp.where(temperature > 0, warm, only_best)


def reported(
  logits: Float[Array, "B N V"], rules: Rules, history: History | None = None
) -> Float[Array, "B N V"]:
  """Returns the logits of the probabilities that people are shown.

  They are those of `process`, but for greedy rows, of whose tokens those would say 1 or 0: such a
  row has those of `adjusted`, at temperature 1 and without filters.
  """
  own = adjusted(logits, rules, history)
  if rules.temperature is None:
    return own
  return jnp.where(_column(rules.temperature) > 0, process(logits, rules, history), own)


def adjusted(
  logits: Float[Array, "B N V"], rules: Rules, history: History | None = None
) -> Float[Array, "B N V"]:
  """Returns logits with bias, penalties and constraint, in float32 at least.

  Greedy rows take their argmax.
  """
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  place = None if history is None else history.place
  if (rules.has_penalty and history is None) or (rules.constraint is not None and place is None):
    raise ValueError(
      "penalties and constraints need `history`, which has the tokens that each row has seen"
    )
  if rules.logit_bias is not None:
    logits += rules.logit_bias[:, None, :]
  if rules.repetition_penalty is not None:
    penalty = _column(rules.repetition_penalty)
    punished = jnp.where(logits > 0, logits / penalty, logits * penalty)
    logits = jnp.where(_by_node(history.seen), punished, logits)
  if rules.presence_penalty is not None:
    logits -= jnp.where(_by_node(history.generated), _column(rules.presence_penalty), 0.0)
  if rules.constraint is not None and place is not None:
    logits = jnp.where(rules.constraint.allowed(place), logits, -jnp.inf)
  return logits


def best_tokens(
  logits: Float[Array, "B N V"], rules: Rules, history: History | None = None
) -> Int[Array, "B N"]:
  """Returns the greedy tokens, int32: the argmax of `adjusted`.

  On a mesh each device looks through its own tokens.
  """

  def best(logits, rules, history):
    return argmax(adjusted(logits, rules, history))

  return over_vocabulary(best, logits, rules, history, roles=_roles(history), out="b")


_OF_RULES = {"logit_bias": "bv", "class_of_token": ".v", "next": "", "distance": ""}


def _roles(history: History | None) -> tuple[str, dict[str, str], dict[str, str]]:
  """Returns the letters of logits, rules and history for `over_vocabulary`."""
  by_node = history is not None and history.seen is not None and history.seen.ndim == 3
  seen = "b.v" if by_node else "bv"
  return "b.v", _OF_RULES, {"seen": seen, "generated": seen}


def _truncate(logits, rules: Rules):
  if vocabulary.is_split():
    return cut_by_parts(logits, rules.top_k, rules.top_p, rules.min_p)
  threshold = jnp.full_like(logits[..., :1], -jnp.inf)
  if rules.top_k is not None or rules.top_p is not None:
    ranked = -jnp.sort(-logits, axis=-1)
    kept = jnp.ones_like(ranked, bool)
    if rules.top_k is not None:
      k = jnp.where(rules.top_k > 0, rules.top_k, logits.shape[-1])
      kept &= jnp.arange(logits.shape[-1]) < _column(k)
    if rules.top_p is not None:
      mass = jax.nn.softmax(jnp.where(kept, ranked, -jnp.inf), axis=-1)
      top_p = _column(rules.top_p)
      # Rounded sums reach 1 before the tail does: where it is off, nothing may be cut.
      kept &= (jnp.cumsum(mass, axis=-1) - mass < top_p) | (top_p >= 1)
    threshold = jnp.min(jnp.where(kept, ranked, jnp.inf), axis=-1, keepdims=True)
  if rules.min_p is not None:
    top = jnp.max(logits, axis=-1, keepdims=True)
    threshold = jnp.maximum(threshold, top + jnp.log(_column(rules.min_p)))
  return jnp.where(logits >= threshold, logits, -jnp.inf)


def seed_key(key: Seed) -> Key[Array, "*B"]:
  """Returns the key of a seed; keys are returned as they are.

  The lower 32 bits of a seed make the key, and the upper ones are folded in where there are any:
  `jax.random.key` alone would drop them, and 2**32 would be seed 0. Raises ValueError for anything
  but keys and whole numbers from 0 to 2**64 - 1.
  """
  if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    return key
  seed = integer(key, "a key that is not made by jax.random.key is a seed and")
  if not 0 <= seed < _SEEDS:
    raise ValueError(f"a seed is a whole number from 0 to 2**64 - 1, got {seed}")
  upper, lower = divmod(seed, 2**32)
  lower_key = jax.random.key(lower)
  return jax.random.fold_in(lower_key, upper) if upper else lower_key


def row_keys(key: Seeds, batch: int) -> Key[Array, " {batch}"]:
  """Returns keys [B]: a seed or key folded with the row index; keys [B] are returned as they are.

  Seeds are a list: each row has the key that a batch of this row alone would have for its seed.
  Raises ValueError for another number of seeds or keys, and as `seed_key` does.
  """
  if isinstance(key, Sequence):
    if len(key) != batch:
      raise ValueError(
        f"the seeds for a batch of {batch} must be one per row, or one for all, got {len(key)}"
      )
    return jnp.stack([jax.random.fold_in(seed_key(seed), 0) for seed in key])
  key = seed_key(key)
  if key.ndim == 0:
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(batch))
  if key.shape != (batch,):
    raise ValueError(
      f"the keys for a batch of {batch} must be one key or one per row, got the shape {key.shape}"
    )
  return key


def sample(
  processed_logits: Float[Array, "B V"], keys: Key[Array, " B"], step: Int[Array, " B"]
) -> Int[Array, " B"]:
  """Samples one token per row, with the row's own key folded with the row's own step."""

  def one(logits, key, step):
    return sample_categorical(logits, jax.random.fold_in(key, step))

  return over_vocabulary(
    jax.vmap(one), processed_logits, keys, step, roles=("bv", "b", "b"), out="b"
  )


def _column(value):
  return value[:, None, None]


def _by_node(seen):
  return seen[:, None, :] if seen.ndim == 2 else seen
