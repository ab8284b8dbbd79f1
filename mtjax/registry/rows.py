"""One row of the table of methods."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from mtjax.registry.drafters import Entry
from mtjax.registry.fill_methods import FillEntry
from mtjax.types import Exactness


@dataclasses.dataclass(frozen=True)
class MethodRow:
  """The description of a method. Paths are relative to the repository.

  A row with a drafter makes it known to every launcher, comparison, table and proof; so does one
  with a fill method (`fill_row`). `how` says how a drafter drafts; if it is empty, tables show the
  title. `pays` is one sentence about when the method is worth its cost; docs/benchmarks.md has the
  measurements behind it.
  """

  title: str
  paper: str
  exactness: Exactness
  file: str
  config: str | None = "configs/decode/drafter.py"  # for any drafter; None: a flag names the method
  test: str = "tests/draft/test_speculative.py"  # for every drafter
  family: str = "speculative"
  how: str = ""
  pays: str = "Not measured yet."
  drafter: Entry | None = None
  # Defaults in configs: the verifier, the draft model if the method has one, and those settings of
  # the drafter that differ from its own defaults.
  verifier: str = "sample_match"
  draft_model: str = "draft"
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  fill: FillEntry | None = None


# The row of a fill method, which --method names; its exactness holds for the method's own defaults.
fill_row = functools.partial(
  MethodRow, family="filling", config=None, test="tests/anysubset/test_fill_distributions.py"
)
