"""The rounds of a drafter in texts that are known, where its drafts follow from the text alone."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mtjax.decode.planned.watching import DraftsOfText, right_drafts
from mtjax.draft.text_buffer import TextBuffer
from mtjax.tuning.online.watching import Watched, watched_rounds
from mtjax.tuning.profiles import AcceptanceCounts

_right = jax.jit(right_drafts, static_argnums=(0, 2))


def text_rounds(
  drafter: DraftsOfText, prompts: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]
) -> AcceptanceCounts:
  """Returns the counts of decoding texts with chains of a drafter, of all texts together.

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
  begin = [len(prompt) + 1 for prompt in prompts]
  watched = Watched(np.asarray(right).tolist(), length.tolist(), begin, drafter.height)
  return watched_rounds(watched, ended=True)[0]
