"""Tasks that a model answers in writing: their prompts, and scores against cases worked by hand."""

import gzip
import json
import shutil
from importlib import resources

import pytest

from mtjax.data.tokenizers import BpeTokenizer, ByteTokenizer
from mtjax.evaluate.answers.code.humaneval import HumanEval
from mtjax.evaluate.answers.gsm8k import Gsm8k, comparable, last_number
from mtjax.evaluate.answers.last_word import LastWord, first_word
from mtjax.evaluate.answers.mtbench import MtBench
from mtjax.evaluate.answers.prompts import format_for, prompt_ids
from mtjax.evaluate.answers.protocol import AnswerTask, Question
from mtjax.evaluate.answers.registry import TASKS
from mtjax.evaluate.answers.summary import wilson
from mtjax.evaluate.tasks.sandbox import SandboxLimits
from mtjax.rounds.stop_strings import StopScan, StopWords

PROBLEM = dict(
  task_id="Own/0",
  prompt='\n\ndef twice(x):\n    """ Returns 2 x. """\n',
  entry_point="twice",
  canonical_solution="    return 2 * x\n",
  test="def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n",
)
TEMPLATE = (
  "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
  "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def lines(path, *records):
  path.write_text("".join(json.dumps(record) + "\n" for record in records))
  return str(path)


def own_questions(task, path, record, prompt_format):
  return task.questions(lines(path, record), prompt_format)


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
  """The bundled tokenizer with a chat template."""
  pytest.importorskip("jinja2", reason="pip install mtjax[hf]")
  folder = tmp_path_factory.mktemp("chat")
  shutil.copy(str(resources.files("mtjax") / "assets" / "tokenizer.json"), folder)
  config = dict(eos_token="<|endoftext|>", chat_template=TEMPLATE)
  (folder / "tokenizer_config.json").write_text(json.dumps(config))
  return BpeTokenizer(folder / "tokenizer.json")


@pytest.mark.parametrize(
  ("text", "number"),
  [
    ("She has 3 boxes. So 3 * 4 = 12.", "12"),
    ("That makes $1,200.00 in all.", "1200"),
    ("The answer is \\boxed{-7}", "-7"),
    ("It is 2.50 dollars", "2.50"),
    ("18 dollars, or 20 %", "20"),  # the last number, whatever it is
    ("#### 42\n", "42"),
    ("So the answer is eight.", None),
    ("", None),
  ],
)
def test_the_last_number_of_an_answer_is_found(text, number):
  assert last_number(text) == number


def test_numbers_are_compared_without_separators_signs_and_zero_cents():
  given = ["1,000", "$5", "5.", "5.00", "-3", "0.50"]
  assert [comparable(one) for one in given] == ["1000", "5", "5", "5", "-3", "0.50"]


def test_an_answer_of_gsm8k_is_right_if_its_last_number_is(tmp_path):
  task = Gsm8k()
  record = dict(question="How many?", answer="5 * 200 = <<5*200=1000>>1000\n#### 1,000")
  (question,) = own_questions(task, tmp_path / "a.jsonl", record, "text")
  assert question.turns == ("Q: How many?\nA: Let's think step by step.",)
  assert task.judge(question, ["5 times 200 is $1,000.00."]) == dict(right=True, number="1000")
  assert task.judge(question, ["1000 in the first year, and 3 later."])["right"] is False
  assert task.judge(question, ["None."]) == dict(right=False, number=None)


@pytest.mark.parametrize(
  ("answer", "outcome"),
  [
    ("\n    return 2 * x\n", "passed"),
    ("\n    return x\n", "failed"),
    ("\n    return 2 *", "failed"),
    ("\n    while True:\n        pass\n", "timed out"),
    ("\n    open('own', 'w').write('1')\n    return 2 * x\n", "passed"),
    (
      "\n    with open('own', 'w') as f:\n        f.write('1' * 5000)\n    return 2 * x\n",
      "failed",
    ),
    ("\n    raise SystemExit(0)\n", "failed"),
    ("", "failed"),
  ],
)
def test_a_completed_function_is_run_in_the_sandbox(answer, outcome, tmp_path):
  task = HumanEval(SandboxLimits(seconds=2.0, file=4096))
  (question,) = own_questions(task, tmp_path / "a.jsonl", PROBLEM, "text")
  judged = task.judge(question, [answer])
  assert judged == dict(right=outcome == "passed", outcome=outcome)


@pytest.mark.parametrize(
  ("prompt_format", "written", "answer"),
  [
    ("text", "\n    return 1\n\ndef other(x):\n", "\n    return 1\n"),
    ("text", "\n    if x:\n        return 1\nif __name__ == 'a':", "\n    if x:\n        return 1"),
    ("text", "\n    # a comment\n    return 1\n# end", "\n    # a comment\n    return 1"),
    ("text", "\n    return 1\nprint(f(1))", "\n    return 1"),
    ("chat", "\n    return 1\n```\nThis function", "\n    return 1"),
    ("text", "\n    return 1\n```\nThis", "\n    return 1\n```\nThis"),
  ],
)
def test_a_function_ends_where_something_else_begins(prompt_format, written, answer):
  scan = StopScan(StopWords.of(HumanEval().stop(prompt_format), {}))
  assert (scan.feed(written.encode()) + scan.finish()).decode() == answer


def test_a_function_is_asked_for_in_the_format_of_the_model(chat, tmp_path):
  task, path = HumanEval(), tmp_path / "a.jsonl"
  head = 'def twice(x):\n    """ Returns 2 x. """'
  (question,) = own_questions(task, path, PROBLEM, "text")
  assert bytes(prompt_ids(ByteTokenizer(), "text", question, ())).decode() == head
  (question,) = own_questions(task, path, PROBLEM, "chat")
  shown = chat.decode(prompt_ids(chat, "chat", question, ()))
  assert shown.startswith("<user>Write a solution") and shown.count(head) == 2
  assert shown.endswith(f"</><assistant>Here is the completed function:\n```python\n{head}")


@pytest.mark.parametrize(
  ("answer", "right"),
  [
    (" signs, he said", True),
    (' "signs."\n\nNobody', True),
    (" sign", False),
    (" Signs", False),
    ("signs", False),  # a part of the word before it
    ("", False),
  ],
)
def test_the_first_word_must_be_the_last_of_the_passage(answer, right, tmp_path):
  task = LastWord()
  path = lines(tmp_path / "a.jsonl", dict(text="I don't care about signs"))
  (question,) = task.questions(path, "text")
  assert question.turns == ("I don't care about",)
  assert task.judge(question, [answer])["right"] is right
  assert first_word(" \u201cdon't\u201d ") == "don't"


def test_a_turn_follows_the_answers_of_the_turns_before_it(chat, tmp_path):
  task, path = MtBench(), tmp_path / "a.jsonl"
  record = dict(question_id=1, category="writing", turns=["One?", "Two?"])
  (question,) = own_questions(task, path, record, "text")
  second = bytes(prompt_ids(ByteTokenizer(), "text", question, [" Yes."])).decode()
  assert second == "### Human: One?\n### Assistant: Yes.\n### Human: Two?\n### Assistant:"
  (question,) = own_questions(task, path, record, "chat")
  assert chat.decode(prompt_ids(chat, "chat", question, ())) == "<user>One?</><assistant>"
  expected = "<user>One?</><assistant>Yes.</><user>Two?</><assistant>"
  assert chat.decode(prompt_ids(chat, "chat", question, ["Yes."])) == expected
  begun = Question("a", ("One?", "Two?"), begun="Well: ")
  shown = chat.decode(prompt_ids(chat, "chat", begun, ["yes."]))
  assert shown == "<user>One?</><assistant>Well: yes.</><user>Two?</><assistant>"


def test_a_model_with_a_template_gets_the_chat_format(chat):
  for task in TASKS.values():
    assert isinstance(task, AnswerTask)
    assert format_for(chat, task, "a", None) == task.formats[0]
    assert format_for(ByteTokenizer(), task, "a", None) == "text"
  assert format_for(chat, TASKS["gsm8k"], "gsm8k", "text") == "text"
  for tokenizer in (ByteTokenizer(), BpeTokenizer.bundled()):
    with pytest.raises(ValueError, match="no chat template.* use --prompt_format=text"):
      format_for(tokenizer, TASKS["gsm8k"], "gsm8k", "chat")
  with pytest.raises(ValueError, match="lambada_greedy has prompts as text only, not as chat"):
    format_for(chat, TASKS["lambada_greedy"], "lambada_greedy", "chat")


@pytest.mark.parametrize(
  ("name", "record", "message"),
  [
    ("humaneval", dict(PROBLEM, suffix="x"), "line 1: .*one of humaneval_infilling: give Human"),
    ("humaneval", dict(task_id="a"), "no JSON record with text in task_id, prompt, test, entry"),
    ("gsm8k", dict(question="a", answer="5"), 'line 1: the answer has no number after "#### "'),
    ("lambada_greedy", dict(text="one"), "line 1: a passage must have at least two words"),
    ("mtbench", dict(category="a", turns="b"), 'line 1: "turns" must be a list of texts'),
    ("mtbench", dict(category="a", turns=[]), 'line 1: "turns" must be a list of texts'),
  ],
)
def test_files_of_other_tasks_are_refused_with_their_line(name, record, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    TASKS[name].questions(lines(tmp_path / "a.jsonl", record), "text")


def test_gzipped_files_are_read_and_two_problems_of_one_name_are_refused(tmp_path):
  path = tmp_path / "a.jsonl.gz"
  path.write_bytes(gzip.compress((json.dumps(PROBLEM) + "\n").encode() * 2))
  with pytest.raises(ValueError, match="line 2: there are two problems 'Own/0'"):
    HumanEval().questions(str(path), "text")


def test_wilsons_interval_is_that_of_the_literature():
  # R. G. Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I.
  golden = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0.0, 0.1611)}
  golden[1, 29] = (0.0061, 0.1718)
  for (right, count), interval in golden.items():
    assert wilson(right, count) == pytest.approx(interval, abs=5e-5)
  assert wilson(20, 20) == pytest.approx((1 - 0.1611, 1.0), abs=5e-5)
  with pytest.raises(ValueError, match="3 of 2"):
    wilson(3, 2)
