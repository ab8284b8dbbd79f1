"""The model `mtjax` inside lm-evaluation-harness itself, where it is installed.

It is heavy, so `make test` does not install it. In an environment of its own:

    pip install -e '.[dev,lm_eval]' && python -m pytest tests/evaluate/test_lm_eval.py

With torch and transformers (the extra `parity`) it is also compared with the harness's model `hf`.
"""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from mtjax import checkpoints
from mtjax.data.tokenizers import BpeTokenizer
from mtjax.evaluate.harness.pairs import encode_pair, rolling_pairs
from mtjax.models import Model, TransformerConfig, uniform_layers
from tests.source import ROOT

WHY = "in an environment of its own: pip install 'mtjax[lm_eval]' (heavy; see the file's docstring)"
PAIRS = [
  ("The old clock struck", " nine"),
  ("The old clock struck ", "nine, and the children ran down to the garden"),
  ("", "Once upon a time"),
  ("def add(a, b):\n", "    return a + b"),
  ("word " * 90, " word"),
]
DOCUMENTS = ["It had rained all night. " * 20, "x = 1"]
REQUESTS = [
  ("The old clock struck", dict(until=["\n"], max_gen_toks=9)),
  ("def add(a, b):\n", dict(until=["zq"], max_gen_toks=12, do_sample=False)),
  ("word " * 90, dict(until=[], max_gen_toks=5, temperature=0.0)),
]
CHOICES = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
doc_to_target: {target}
{more}
"""


@pytest.fixture(scope="module", autouse=True)
def harness():
  module = pytest.importorskip("lm_eval", reason=WHY)
  import mtjax.evaluate.harness.lm_eval  # noqa: F401 - registers the model

  return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  config = TransformerConfig(4096, 16, 2, 1, 8, 16, uniform_layers(1), max_position=128)
  path = tmp_path_factory.mktemp("model") / "tiny"
  model = Model(config)
  params = jax.tree.map(lambda x: 3 * x, model.init(jax.random.key(0)))
  checkpoints.save(path, model, params, tokenizer=BpeTokenizer.bundled())
  return path


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
  """A folder of two local tasks: one whose choices are scored, one that is answered in writing."""
  path = tmp_path_factory.mktemp("tasks")
  data = path / "data.jsonl"
  lines = [
    dict(question=context, answer=after, right=n % 2) for n, (context, after) in enumerate(PAIRS)
  ]
  data.write_text("".join(json.dumps(line) + "\n" for line in lines))
  choice = 'doc_to_choice: ["a", "b"]\nmetric_list: [{metric: acc}]'
  said = "generation_kwargs: {until: ['zq'], max_gen_toks: 6}\nmetric_list: [{metric: exact_match}]"
  for name, kind, target, more in (
    ("own_choice", "multiple_choice", "right", choice),
    ("own_text", "generate_until", '"{{answer}}"', said),
  ):
    text = CHOICES.format(name=name, data=data, kind=kind, target=target, more=more)
    (path / f"{name}.yaml").write_text(text)
  return path


def loaded(folder, **settings):
  from lm_eval.api.registry import get_model

  return get_model("mtjax")(pretrained=str(folder), batch_size=2, max_length=64, **settings)


def instances(kind, arguments):
  from lm_eval.api.instance import Instance

  return [
    Instance(request_type=kind, doc={}, arguments=one, idx=index, metadata=("own", index, 1))
    for index, one in enumerate(arguments)
  ]


def asked(lm):
  documents = [(text,) for text in DOCUMENTS]
  return (
    lm.loglikelihood(instances("loglikelihood", PAIRS), disable_tqdm=True),
    lm.loglikelihood_rolling(instances("loglikelihood_rolling", documents), disable_tqdm=True),
    lm.generate_until(instances("generate_until", REQUESTS), disable_tqdm=True),
  )


def test_tokens_are_those_of_the_harness(folder):
  from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

  lm = loaded(folder)
  for context, continuation in PAIRS:
    if context:
      pair = encode_pair(lm.tokenizer, context, continuation)
      assert (pair.context, pair.target) == lm._encode_pair(context, continuation)
  for size, length in ((0, 4), (1, 4), (4, 4), (10, 4), (12, 4), (13, 5), (7, 1)):
    windows = get_rolling_token_windows(list(range(size)), 99, length, 1)
    expected = [make_disjoint_window(window) for window in windows]
    pairs = rolling_pairs(range(size), prefix=99, max_length=length)
    assert [(pair.context, pair.target) for pair in pairs] == expected


def test_answers_do_not_depend_on_a_lossless_method(folder):
  assert asked(loaded(folder)) == asked(loaded(folder, method="lookup", length=3))


def test_answers_are_those_of_hf(folder):
  pytest.importorskip("torch", reason="pip install 'mtjax[parity]'")
  pytest.importorskip("transformers", reason="pip install 'mtjax[parity]'")
  from lm_eval.models.huggingface import HFLM

  settings = dict(dtype="float32", device="cpu", batch_size=2, max_length=64)
  expected = asked(HFLM(pretrained=str(folder), **settings))
  found = asked(loaded(folder))
  np.testing.assert_allclose([s[0] for s in found[0]], [s[0] for s in expected[0]], rtol=1e-4)
  assert [s[1] for s in found[0]] == [s[1] for s in expected[0]]
  np.testing.assert_allclose(found[1], expected[1], rtol=1e-4)
  assert found[2] == expected[2]


def test_simple_evaluate_runs_local_tasks(harness, folder, tasks):
  from lm_eval.tasks import TaskManager

  results = harness.simple_evaluate(
    model="mtjax",
    model_args=f"pretrained={folder},method=lookup,length=3",
    tasks=["own_choice", "own_text"],
    task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
    batch_size=2,
    bootstrap_iters=0,
  )
  assert results["results"]["own_choice"]["sample_len"] == len(PAIRS)
  texts = [sample["resps"][0][0] for sample in results["samples"]["own_text"]]
  assert len(texts) == len(PAIRS) and all(texts)


def test_the_command_runs_a_local_task(folder, tasks, tmp_path):
  command = [
    sys.executable, "-m", "mtjax.evaluate.harness", "run", "--model", "mtjax", "--model_args",
    f"pretrained={folder},method=lookup", "--tasks", "own_choice", "--include_path", str(tasks),
    "--output_path", str(tmp_path / "out"),
  ]  # fmt: skip
  offline = dict(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HOME=str(tmp_path / "home"))
  run = subprocess.run(
    command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **offline}
  )
  assert run.returncode == 0, run.stderr[-3000:]
  assert "own_choice" in run.stdout and "acc" in run.stdout


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (dict(method="lookup", depth=2), "depth"),
    (dict(max_length=129), "max_length from 1 to the 128 positions"),
    (dict(batch_size=0), "batch_size must be at least 1"),
  ],
)
def test_settings_out_of_range_are_refused(folder, settings, message):
  from lm_eval.api.registry import get_model

  with pytest.raises(ValueError, match=message):
    get_model("mtjax")(pretrained=str(folder), **settings)


def test_chat_is_refused_without_a_template(folder):
  lm = loaded(folder)
  assert lm.chat_template(False) is None
  with pytest.raises(FileNotFoundError, match="no chat template"):
    lm.apply_chat_template([dict(role="user", content="a")])
