"""Prompt sets from files of their published form, and errors for other files."""

import gzip
import json

import pytest

from mtjax.data.tokenizers import ByteTokenizer
from mtjax.evaluate.sets.chat import chat_prompt
from mtjax.evaluate.sets.prompts import JOBS, SETS, prompts, split_prompts

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


@pytest.mark.parametrize("name", FORMS)
def test_a_record_becomes_the_prompt_of_its_set(tmp_path, name):
  record, prompt = FORMS[name]
  write(tmp_path / name, [record], "data.jsonl.gz")
  assert prompts(tmp_path, name, 1) == [prompt]


def test_every_set_has_a_test_of_its_form():
  assert {*FORMS, *JOBS} == set(SETS)


# Of 250 to 600 characters, which is what a job of editing takes.
CODE = "def total(x):\r\n\tn = 0\r\n" + "".join(f"\tn += x[{i}] * {i}\r\n" for i in range(12))
CODE += "\treturn n\r\ndef main():\r\n\tprint(total([1] * 12))"


def test_a_job_of_editing_holds_the_code_and_asks_for_all_of_it(tmp_path):
  records = [
    dict(text="short", code="def f():\n  pass"),
    dict(text="no function", code="x = 1\n" * 60),
    dict(prompt="sanitised", code=CODE),
    *(dict(text="sum", code=CODE.replace("total", f"total{i}")) for i in range(12)),
  ]
  write(tmp_path / "mbpp", records)
  found = prompts(tmp_path, "editing", 12)
  for i, prompt in enumerate(found):
    edit, code = prompt.split(" Answer with the whole code.\n\n")
    assert code.startswith(f"```python\ndef total{i}(x):\n    n = 0\n"), "tabs and line ends"
    assert code.endswith(f"def main():\n    print(total{i}([1] * 12))\n```")
    assert "{" not in edit and edit.endswith(".")
  edits = {prompt.split(" Answer")[0] for prompt in found}
  assert len(edits) > 1 and "Rename the function `main` to `main_of`, everywhere." in edits
  with pytest.raises(ValueError, match="has only 12 prompts"):
    prompts(tmp_path, "editing", 13)


def test_a_job_of_summarising_holds_whole_sentences_of_the_beginning_of_an_article(tmp_path):
  sentences = [f"Sentence {i:03d} says {'much ' * 15}here." for i in range(80)]  # 99 characters
  write(tmp_path / "wikidemo", [dict(text=" ".join(sentences)), dict(text="Too short.")])
  found = prompts(tmp_path, "summarising", 3)
  passages = [prompt.split("\n\n")[1] for prompt in found]
  assert " ".join(passages) == " ".join(sentences[:24]), "8 sentences of 99 and a space fit in 800"
  with pytest.raises(ValueError, match="has only 3 prompts"):
    prompts(tmp_path, "summarising", 4)


class Chat:
  """A tokenizer of words, and of pairs of them at the beginning, with a template of 3 tokens."""

  def encode_documents(self, texts):
    return [text.split() for text in texts]

  def decode(self, ids):
    return " ".join(ids)

  def encode_chat(self, messages):
    words = messages[0]["content"].split()
    return ["<user>", *(["<again>"] if words[:1] == ["c"] else []), *words, "<end>", "<model>"]


def test_a_message_that_is_too_long_loses_its_beginning_and_the_template_stays():
  def made(max_tokens):
    return " ".join(chat_prompt(Chat(), "a b c d e", max_tokens=max_tokens))

  assert made(9) == made(8) == "<user> a b c d e <end> <model>"
  assert made(7) == "<user> b c d e <end> <model>"
  assert made(6) == "<user> d e <end> <model>", "a cut text may have more tokens than its part"
  with pytest.raises(ValueError, match="leaves nothing of a prompt of 3 tokens"):
    made(3)
  with pytest.raises(ValueError, match="no chat template"):
    chat_prompt(ByteTokenizer(), "a", max_tokens=9)


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
