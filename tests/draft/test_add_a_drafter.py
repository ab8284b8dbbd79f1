"""docs/guides/new_drafter.md, done: its file and its row, through the proofs of every row."""

import ast
import types
from unittest import mock

import pytest

from docs.make.methods import decoding_table, short_decoding_table
from mtjax.cli.method_names import method_config
from mtjax.decode.generation import generate
from mtjax.decode.speculative import Speculative
from mtjax.registry import methods
from mtjax.registry.build import make_method
from mtjax.registry.configs import decode_config
from mtjax.sampling.logits import Sampling
from tests.draft.drafters import LIMITS, PARAMS, PROMPTS, TARGET, made_by_the_registry
from tests.source import ROOT, python_blocks
from tests.test_annotations import unannotated

GUIDE = ROOT / "docs" / "guides" / "new_drafter.md"


@pytest.fixture(scope="module")
def blocks():
  found = python_blocks(GUIDE)
  assert len(found) == 2
  return found


@pytest.fixture(scope="module")
def echo(blocks):
  module = types.ModuleType("echo")
  exec(compile(blocks[0], GUIDE.name, "exec"), module.__dict__)
  return module.Echo


@pytest.fixture(scope="module")
def row(blocks, echo):
  """The row of the guide, beside the others for as long as these tests run."""
  made = eval("{" + blocks[1] + "}", {**vars(methods), "Echo": echo})
  with mock.patch.dict(methods.METHODS, made):
    yield made["echo"]


def test_the_row_makes_it_by_name(row, echo):
  assert "from mtjax.draft.model_free.echo import Echo" in GUIDE.read_text(encoding="utf-8")
  config = decode_config("echo")
  assert config.drafter.to_dict() == dict(length=3)
  config.drafter.length = 5
  method, params = make_method(config.to_dict(), None)
  assert method == Speculative(echo(length=5)) and params is None
  assert method_config("echo").to_dict() == decode_config("echo").to_dict()
  assert method_config("auto:echo").of == "echo"
  assert "(`echo`)" in decoding_table() and "[`echo`]" in short_decoding_table()


def test_its_signatures_say_their_types():
  assert not unannotated(GUIDE, ast.parse(python_blocks(GUIDE)[0]))


@pytest.mark.parametrize("sampling", [None, Sampling(temperature=0.9, presence_penalty=0.3)])
def test_the_row_passes_the_proof_of_every_row(row, sampling):
  made = made_by_the_registry("echo")
  settings = dict(max_tokens=LIMITS, sampling=sampling, key=5)
  plain = generate(TARGET, PARAMS, PROMPTS, **settings)
  method = Speculative(made.drafter)
  out = generate(TARGET, PARAMS, PROMPTS, method=method, method_params=made.params, **settings)
  assert out.tokens == plain.tokens
  assert sum(out.counters["drafted_at_depth"]) > 0
