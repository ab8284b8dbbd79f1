"""README's "Add a drafter", done: its file, its line, its row, through the proofs of every row."""

import re
import types
from pathlib import Path

import pytest

from mtjax.decode.generation import generate
from mtjax.decode.speculative import Speculative
from mtjax.registry import drafters
from mtjax.sampling.logits import Sampling
from tests.draft.drafters import LIMITS, PARAMS, PROMPTS, TARGET, Row

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def blocks():
  section = README.read_text(encoding="utf-8").split("### Add a drafter")[1].split("\n## ")[0]
  found = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
  assert len(found) == 2
  return found


@pytest.fixture(scope="module")
def echo(blocks):
  module = types.ModuleType("echo")
  exec(compile(blocks[0], "README.md", "exec"), module.__dict__)
  return module.Echo


def test_the_line_makes_it_by_name(blocks, echo):
  line = blocks[1].splitlines()[0]
  assert "from mtjax.draft.echo import Echo" in README.read_text(encoding="utf-8")
  made = eval("{" + line + "}", {**vars(drafters), "Echo": echo})
  drafter, params = made["echo"](dict(drafter=dict(length=5)), None)
  assert drafter == echo(length=5) and params is None
  assert made["echo"].settings == dict(length=3)


@pytest.mark.parametrize("sampling", [None, Sampling(temperature=0.9, presence_penalty=0.3)])
def test_the_row_passes_the_proof_of_every_row(blocks, echo, sampling):
  row = eval("{" + blocks[1].splitlines()[1] + "}", dict(Row=Row, Echo=echo))["echo"]
  settings = dict(max_tokens=LIMITS, sampling=sampling, key=5)
  plain = generate(TARGET, PARAMS, PROMPTS, **settings)
  method = Speculative(row.drafter)
  out = generate(TARGET, PARAMS, PROMPTS, method=method, method_params=row.params, **settings)
  assert out.tokens == plain.tokens
  assert sum(out.counters["drafted_at_depth"]) > 0
