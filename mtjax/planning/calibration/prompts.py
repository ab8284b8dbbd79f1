"""The prompts of calibration, in full batches of one length."""

import itertools
from collections.abc import Mapping, Sequence

from mtjax.planning.calibration.request import PlanRequest, new_tokens
from mtjax.planning.texts import Texts, same_length
from mtjax.text import TextModel

VARIANTS = 8  # batches of a domain, of other prompts or of shorter ones, decoded in turn
COUNTED = 16  # texts of a domain that drafts are counted in
_WIDE = 4096  # tokens of a batch that is decoded for its text alone


def prompts_of(
  text: TextModel, texts: Texts, request: PlanRequest
) -> dict[str, list[list[list[int]]]]:
  """Returns batches of prompts per domain, as long as the context says (`same_length`).

  The rates of a single text say little of its domain.
  """
  if request.context > text.model.config.max_position:
    raise ValueError(
      f"a context of {request.context} tokens is longer than the model's "
      f"{text.model.config.max_position} positions: give a shorter one"
    )
  if not texts:
    raise ValueError("there is no text to calibrate with: give at least one domain with a prompt")
  length = max(request.context - new_tokens(request), 1)
  count = _ceil(max(VARIANTS * request.batch, COUNTED), request.batch)
  rows = same_length(text, texts, length, rows=count)
  return {
    domain: [own[at : at + request.batch] for at in range(0, len(own), request.batch)]
    for domain, own in rows.items()
  }


def grouped(
  prompts: Mapping[str, Sequence[Sequence[list[int]]]], rows: int
) -> dict[str, list[list[list[int]]]]:
  """Returns the prompts that drafts are counted after, by domain, in full batches of `rows`."""
  out = {}
  for domain, batches in prompts.items():
    own = list(itertools.chain(*batches))
    own = [own[place % len(own)] for place in range(_ceil(COUNTED, rows))]
    out[domain] = [own[at : at + rows] for at in range(0, len(own), rows)]
  return out


def wide_rows(request: PlanRequest) -> int:
  """Returns the rows of batches that are decoded for their text alone: several of the request."""
  return request.batch * max(min(COUNTED, _WIDE // request.context) // request.batch, 1)


def _ceil(count: int, unit: int) -> int:
  return -(-count // unit) * unit
