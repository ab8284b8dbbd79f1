"""Prompt sets from files of their published form, and errors for other files."""

import gzip
import json

import pytest

from mtjax.evaluate.sets.prompts import SETS, prompts, split_prompts

CALL = [
  {"from": "human", "value": "weather in Rome?"},
  {"from": "function_call", "value": '{"name": "weather"}'},
  {"from": "observation", "value": "sunny"},
  {"from": "function_call", "value": '{"name": "forecast"}'},
  {"from": "gpt", "value": "It is sunny."},
]
FORMS = {
  "specbench": ({"turns": ["first", "second"]}, "first"),
  "pycode": ({"text": "import os\nprint(os)\n"}, "import os\n"),
  "toolcall": (
    {"tools": "[weather]", "conversations": CALL},
    'tools: [weather]\nhuman: weather in Rome?\nfunction_call: {"name": "weather"}\n'
    "observation: sunny\nfunction_call:",
  ),
  "gsm8k": ({"question": "1 + 1?", "answer": "2"}, "Question: 1 + 1?\nAnswer:"),
  "humaneval": ({"prompt": "def f():\n", "canonical_solution": "  pass"}, "def f():\n"),
}


def write(folder, records, name="data.jsonl"):
  folder.mkdir(exist_ok=True)
  opened = gzip.open if name.endswith(".gz") else open
  with opened(folder / name, "wt", encoding="utf-8") as file:
    file.writelines(json.dumps(record) + "\n\n" for record in records)


def gsm8k(*questions):
  return [dict(question=str(q)) for q in questions]


@pytest.mark.parametrize("name", SETS)
def test_a_record_becomes_the_prompt_of_its_set(tmp_path, name):
  record, prompt = FORMS[name]
  write(tmp_path / name, [record], "data.jsonl.gz")
  assert prompts(tmp_path, name, 1) == [prompt]


def test_a_conversation_without_a_call_or_tools_is_used_whole(tmp_path):
  write(tmp_path / "toolcall", [{"conversations": CALL[:1]}])
  assert prompts(tmp_path, "toolcall", 1) == ["human: weather in Rome?\nfunction_call:"]


def test_prompts_are_spread_over_all_files_of_the_set_and_empty_ones_left_out(tmp_path):
  write(tmp_path / "humaneval", [dict(prompt=f"{i}") for i in range(6)], "a.jsonl")
  write(tmp_path / "humaneval", [dict(prompt=" "), dict(prompt="6"), dict(prompt="7")], "b.jsonl")
  assert prompts(tmp_path, "humaneval", 4) == ["0", "2", "4", "6"]


def test_a_test_split_leaves_the_training_split_out(tmp_path):
  write(tmp_path / "gsm8k", gsm8k(1, 2), "train.jsonl.gz")
  write(tmp_path / "gsm8k", gsm8k(3), "test_dev.jsonl.gz")
  assert prompts(tmp_path, "gsm8k", 1) == ["Question: 3\nAnswer:"]
  with pytest.raises(ValueError, match="has only 1 prompts, but 2 are needed"):
    prompts(tmp_path, "gsm8k", 2)


def test_prompts_for_warm_up_are_others_even_if_records_repeat(tmp_path):
  write(tmp_path / "gsm8k", gsm8k(*range(5), *range(5), *range(9)))
  chosen, others = split_prompts(tmp_path, "gsm8k", 4, 5)
  assert len(set(chosen)) == 4 and len(set(others)) == 5 and not set(chosen) & set(others)
  assert chosen == prompts(tmp_path, "gsm8k", 4), "what is timed must not depend on the warm-up"
  with pytest.raises(
    ValueError, match="beside the 4, gsm8k in .* has only 5 prompts, but 6 are needed"
  ):
    split_prompts(tmp_path, "gsm8k", 4, 6)


def test_errors_say_what_is_wrong(tmp_path):
  with pytest.raises(ValueError, match=r"unknown prompt sets \['mbpp'\]; there is: specbench, "):
    prompts(tmp_path, "mbpp", 1)
  with pytest.raises(FileNotFoundError, match="no .jsonl or .jsonl.gz file in .*gsm8k"):
    prompts(tmp_path, "gsm8k", 1)
  write(tmp_path / "gsm8k", [dict(question="1"), dict(text="2")])
  with pytest.raises(ValueError, match=r"data.jsonl, line 3: not a record .*'question'"):
    prompts(tmp_path, "gsm8k", 1)
  (tmp_path / "gsm8k" / "data.jsonl").write_text("no json\n")
  with pytest.raises(ValueError, match="data.jsonl, line 1: not a record"):
    prompts(tmp_path, "gsm8k", 1)
