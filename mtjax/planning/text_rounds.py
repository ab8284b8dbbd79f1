"""The rounds of a drafter in texts that are known, where its drafts follow from texts alone."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mtjax.decode.planned.watching import DraftsOfText, right_drafts
from mtjax.draft.model_free.trie import Store
from mtjax.draft.text_buffer import TextBuffer
from mtjax.draft.trie_branches import Branches
from mtjax.tuning.online.watching import Watched, counts_of_lengths, watched_rounds
from mtjax.tuning.profiles import AcceptanceCounts

_right = jax.jit(right_drafts, static_argnums=(0, 2))


def text_rounds(
  drafter: DraftsOfText, prompts: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]
) -> list[AcceptanceCounts]:
  """Returns the counts of decoding each of some texts with chains of a drafter.

  outputs: the tokens of each text behind its prompt, however they were decoded; the first one is
  the prefill's. A draft counts as accepted where it is the text's own token, as `sample_match` has
  it; every lossless verifier accepts drafts of a rule as often. Drafts behind the end of a text
  were not judged. Raises ValueError for no text.
  """
  if not prompts:
    raise ValueError("there is no text to count rounds in")
  texts = [[*prompt, *output] for prompt, output in zip(prompts, outputs, strict=True)]
  length = np.array([len(text) for text in texts], np.int32)
  token = np.zeros((len(texts), length.max()), np.int32)
  for row, text in enumerate(texts):
    token[row, : len(text)] = text
  right = _right(drafter, TextBuffer(jnp.array(token), jnp.array(length)), max(map(len, outputs)))
  rows = zip(np.asarray(right).tolist(), length.tolist(), prompts, strict=True)
  return [
    watched_rounds(Watched([own], [count], [len(prompt) + 1], drafter.height), ended=True)[0]
    for own, count, prompt in rows
  ]


def store_rounds(
  store: Store,
  size: int,
  height: int,
  prompts: Sequence[Sequence[int]],
  outputs: Sequence[Sequence[int]],
) -> list[AcceptanceCounts]:
  """Returns the counts of decoding each text of a batch with the trees of a store.

  Acceptance and the ends of texts are as `text_rounds` has them.

  The store reads the prompts, and learns the outputs round by round, all rows of the batch in
  parallel, as it does while the batch is decoded. So its drafts are the same, and its rounds.

  size, height: of its trees, as the drafter `Trie` has them. Of a tree the depth alone counts: any
  child may be accepted. Raises ValueError for no text.
  """
  if not prompts:
    raise ValueError("there is no text to count rounds in")
  whole, cut = np.zeros((2, len(prompts), height + 1), np.int64)
  requests = store.begin([list(prompt) for prompt in prompts])
  emitted, place = [1] * len(outputs), [0] * len(outputs)
  running = [row for row, output in enumerate(outputs) if output]
  while running:
    for row in running:
      store.extend(requests[row], list(outputs[row][place[row] : place[row] + emitted[row]]))
      place[row] += emitted[row]
    for row in running:
      rest = outputs[row][place[row] :]
      if not rest:
        store.finish(requests[row])
        continue
      accepted = _accepted(store.draft(requests[row], size - 1, height), rest)
      (cut if accepted < height and accepted == len(rest) else whole)[row, accepted] += 1
      emitted[row] = accepted + 1
    running = [row for row in running if place[row] < len(outputs[row])]
  return [counts_of_lengths(*of_row) for of_row in zip(whole, cut, strict=True)]


def _accepted(tree: Branches, rest: Sequence[int]) -> int:
  """Returns how many drafts on a path from the root are the next tokens of the text."""
  node = accepted = 0
  for token in rest:
    child = tree.children[node].get(token)
    if child is None:
      break
    node, accepted = child, accepted + 1
  return accepted
