"""The examples of README and of the guides run as they are printed.

Guides that add something have tests of their own: tests/draft/test_add_a_drafter.py,
tests/anysubset/test_add_a_fill_method.py and tests/train/test_add_an_objective.py.
"""

import pytest

from mtjax.pretrained import BUNDLED
from tests.source import ROOT, python_blocks

NO_MASKED_MODEL = pytest.mark.skipif(
  "masked" not in BUNDLED, reason="the package has no masked model yet"
)
PAGES = [
  "README.md",
  "docs/guides/new_verifier.md",
  "docs/guides/notebooks.md",
  "docs/guides/plan.md",
  "docs/guides/train.md",
  "docs/guides/sweep.md",
  pytest.param("docs/guides/decode.md", marks=pytest.mark.slow),
  pytest.param("docs/guides/infill.md", marks=pytest.mark.slow),
  pytest.param("docs/guides/diffusion.md", marks=[pytest.mark.slow, NO_MASKED_MODEL]),
]


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_run(page):
  blocks = python_blocks(ROOT / page)
  assert blocks
  for block in blocks:
    exec(compile(block, page, "exec"), {})
