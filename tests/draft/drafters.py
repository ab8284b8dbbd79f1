"""Every drafter with a tiny target: the rows that the proofs of this folder run over."""

import dataclasses
from unittest import mock

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from mtjax.draft import (
  S2D,
  BestFirst,
  CrossVocabulary,
  Drafter,
  GrownTree,
  Jacobi,
  ModelCanvas,
  ModelChain,
  ModelTree,
  PromptLookup,
  RatedTrie,
  Recycling,
  SelfS2D,
  SuffixStore,
  Trie,
  TrieStore,
)
from mtjax.draft.model.reencoding import Translator
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.registry.methods import DRAFTERS, get_drafter
from mtjax.text import TextModel
from mtjax.trees import encodings
from tests.draft.letters import Letters

VOCAB = 12
# Of different lengths, with repetitions for what looks them up, and limits that end within drafts.
PROMPTS, LIMITS = [[1, 2, 3, 1, 2], [4, 4, 4], [7, 8, 9, 7, 8, 9, 7]], [20, 13, 30]


@dataclasses.dataclass(frozen=True)
class Row:
  """A drafter of `mtjax.registry.methods.DRAFTERS` with settings, as tests run it."""

  name: str
  drafter: Drafter
  params: PyTree = None
  useful: bool = True  # greedy, it must save forwards of the tiny target on PROMPTS


def make(dim, seed, gain, *, layers=1):
  config = TransformerConfig(
    vocab_size=VOCAB,
    dim=dim,
    heads=2,
    kv_heads=1,
    head_dim=8,
    mlp_dim=2 * dim,
    layers=uniform_layers(layers),
    max_position=128,
  )
  params = Model(config).init(jax.random.key(seed))
  return Model(config), jax.tree.map(lambda x: x * gain if x.ndim == 2 else x, params)


TARGET, PARAMS = make(16, 0, 4.0)
SMALL, SMALL_PARAMS = make(8, 1, 2.0)

# They learn from every test that runs before, as they would in use; one knows more than that.
EMPTY, WARMED, SUFFIX = TrieStore(VOCAB), TrieStore(VOCAB), SuffixStore(VOCAB)
WARMED.warm([[*prompt, *prompt, 5, 0, 10] for prompt in PROMPTS])

RAGGED = encodings.from_paths([[0], [1], [2], [0, 0], [0, 2], [1, 0], [0, 0, 0], [0, 0, 1]])

# Left early by some of its tokens, and not sure enough of others to draft them.
LAYERED, LAYERED_PARAMS = make(8, 3, 2.0, layers=3)


def renamed(params):
  """The same model with its tokens counted from the other end."""
  return params | {"embedding": {"table": params["embedding"]["table"][::-1]}}


# The target's tokens are letters. OTHER has them from the other end; in PAIRS, two at a time and
# not all of them, some texts have no spelling.
LETTERS, OTHER = Letters("abcdefghijkl"), Letters("lkjihgfedcba")
PAIRS = Letters([*"abcdefgh", "bc", "eee", "hij", "gab"])
RENAMED, PAIRED = Translator(LETTERS, OTHER), Translator(LETTERS, PAIRS, look_back=2)

# The target's weights read as those of a masked model, whose mask has an embedding of zeros.
MASKED = Model(
  dataclasses.replace(TARGET.config, predicts="masked", extra_embeddings=1, extra_names=("mask",))
)
MASKED_PARAMS = PARAMS | {"extra": {"table": jnp.zeros((1, TARGET.config.dim))}}

ROWS = {
  "lookup": Row("lookup", PromptLookup(length=4)),
  "lookup, a tree": Row("lookup", PromptLookup(length=3, branches=3)),
  "model": Row("draft", ModelChain(SMALL, 3), SMALL_PARAMS, useful=False),
  # Accepts everything: the cache of the draft model is one short after every round.
  "the target itself": Row("draft", ModelChain(TARGET, 3), PARAMS),
  "the target, while it is sure": Row("draft", ModelChain(TARGET, 5, confidence=0.11), PARAMS),
  # With leaves at every depth, and a sibling missing on the left.
  "masks after the text": Row("canvas", ModelCanvas(MASKED, 3), MASKED_PARAMS, useful=False),
  "a tree of the target": Row("draft_tree", ModelTree(TARGET, RAGGED), PARAMS),
  "likeliest paths of the target": Row("best_first", BestFirst(TARGET, 2, 3, 9, 0.15), PARAMS),
  "a grown tree of the target": Row("grown_tree", GrownTree(TARGET, 8, 3, 2, 2), PARAMS),
  "trie": Row("trie", Trie(size=6, depth=4), EMPTY.handle),
  "trie, warmed": Row("trie", Trie(size=12, depth=3), WARMED.handle),
  "suffix": Row("suffix", RatedTrie(size=6, depth=4), SUFFIX.handle),
  "jacobi": Row("jacobi", Jacobi(3, 3, 2, buckets=VOCAB)),
  "the target in other tokens": Row(
    "cross_vocabulary", CrossVocabulary(TARGET, 4), (renamed(PARAMS), RENAMED.handle)
  ),
  "a model of pairs": Row(
    "cross_vocabulary", CrossVocabulary(SMALL), (SMALL_PARAMS, PAIRED.handle), useful=False
  ),
  "recycling": Row("recycling", Recycling(VOCAB, tree=8)),
  "sorted": Row(
    "sorted", S2D(LAYERED, (1, 2, 3), (0.12, 0.12, 0.1), 4), LAYERED_PARAMS, useful=False
  ),
  "the target's own layer": Row("self_sorted", SelfS2D(TARGET, (1,), (0.0,), length=3), PARAMS),
}


def made_by_the_registry(name: str) -> Row:
  """A drafter as its row in `mtjax.registry.methods` makes it, for the tiny target."""
  small = TextModel(SMALL, SMALL_PARAMS, LETTERS)
  with mock.patch("mtjax.pretrained.load_pretrained", lambda name, **_: small):
    config = dict(draft_model="small", weights="float32")
    drafter, params = get_drafter(name)(config, TextModel(TARGET, PARAMS, LETTERS))
  return Row(name, drafter, params, useful=False)


# A drafter that is new here goes through every proof, too.
ROWS |= {
  name: made_by_the_registry(name)
  for name in DRAFTERS
  if name not in {row.name for row in ROWS.values()}
}
