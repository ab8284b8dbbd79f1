"""The infilling tasks: their files, their checkers, and what a right and a wrong answer get."""

import gzip
import itertools
import json
import math

import jax
import numpy as np
import pytest

from mtjax.data.tokenizers import BpeTokenizer, ByteTokenizer
from mtjax.evaluate.perplexity import score
from mtjax.evaluate.tasks import countdown, sudoku
from mtjax.evaluate.tasks.countdown import Countdown
from mtjax.evaluate.tasks.examples import causal_view, text_of
from mtjax.evaluate.tasks.humaneval import HumanEvalInfilling
from mtjax.evaluate.tasks.lambada import Lambada
from mtjax.evaluate.tasks.protocol import Answer
from mtjax.evaluate.tasks.registry import NAMES, check_data, training_texts
from mtjax.evaluate.tasks.sandbox import SandboxLimits
from mtjax.evaluate.tasks.sudoku import Sudoku
from mtjax.evaluate.tasks.wikitext import WikitextMasked, entropy
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.text import TextModel

BYTES = ByteTokenizer()
PUZZLE, GRID = "3102200002100320", "3142243142131324"  # the first of the published set
PROBLEM = dict(
  task_id="SingleLine/0",
  prompt="def double(x):\n  two = 2\n",
  canonical_solution="  y = x * two\n",
  suffix="  return y\n",
  test="def check(f):\n  assert f(3) == 6\n  assert f(0) == 0\n",
  entry_point="double",
)


def write(path, text):
  opened = gzip.open if path.suffix == ".gz" else open
  with opened(path, "wt", encoding="utf-8") as file:
    file.write(text)
  return str(path)


def answer(example, text, tokenizer=BYTES):
  """The example with `text`, as many tokens as it has, from its first asked token to its last."""
  tokens = np.array(example.tokens)
  tokens[example.blank] = list(tokenizer.encode_documents([text])[0])
  return Answer(tuple(tokens.tolist()), text, text_of(tokenizer, tokens.tolist()))


def own(example, tokenizer=BYTES):
  return text_of(tokenizer, example.tokens[example.blank])


def test_a_program_with_the_reference_passes_and_one_with_another_line_does_not(tmp_path):
  path = write(tmp_path / "problems.jsonl.gz", json.dumps(PROBLEM) + "\n\n")
  task = HumanEvalInfilling(SandboxLimits(seconds=2.0))
  (example,) = task.examples(path, BYTES, max_tokens=20)
  assert own(example) == PROBLEM["canonical_solution"]
  assert len(example.tokens) == 20, "the model sees as much as there is room for"
  right = task.judge(example, answer(example, own(example)))
  assert right == dict(outcome="passed", reference="passed")
  for wrong in ("  y = x + two\n", "  y = x * tow\n", "  exit(0) #xx\n", "  while 1: 0 \n"):
    outcome = task.judge(example, answer(example, wrong))["outcome"]
    assert outcome == ("timed out" if "while" in wrong else "failed"), wrong
  assert task.summary([right, dict(right, outcome="failed")])["pass_at_1"] == 0.5
  assert task.examples(path, BYTES, max_tokens=5) == [], "a blank that is too long is left out"


def test_the_last_word_is_asked_with_the_space_before_it(tmp_path):
  path = write(tmp_path / "a.jsonl", json.dumps({"text": "I don't care about\nsigns\n"}))
  (example,) = Lambada().examples(path, BYTES, max_tokens=100)
  assert own(example) == "\nsigns" and text_of(BYTES, example.tokens).endswith("about\nsigns")
  assert causal_view(example) == example
  with pytest.raises(ValueError, match="line 1: a passage of less than two words"):
    Lambada().examples(write(tmp_path / "b.jsonl", '{"text": "word"}'), BYTES, max_tokens=100)


@pytest.mark.parametrize(
  ("grid", "solved"),
  [
    (GRID, True),
    (GRID[:15] + "3", False),  # a digit twice in a row
    ("1243" + "3412" + "2134" + "4321", False),  # valid, of another puzzle
    (GRID[:15], False),
    (GRID + "1", False),
    (GRID.replace("4", "5"), False),
    ("1234" * 4, False),
    ("1234" + "2341" + "3412" + "4123", False),  # a Latin square: its quarters are wrong
  ],
)
def test_a_sudoku_is_solved_by_a_valid_grid_that_keeps_what_is_given(grid, solved):
  assert sudoku.solves(PUZZLE, grid) == solved


def test_every_grid_is_counted():
  # 288 is the published number of 4 x 4 sudoku grids.
  assert len(set(sudoku.grids())) == 288 and GRID in sudoku.grids()


def test_cells_that_are_blank_are_asked_and_judged(tmp_path):
  path = write(tmp_path / "a.csv", f"Puzzle,Solution\n{PUZZLE},{GRID}\n{GRID},{GRID}\n")
  tokenizer, task = BpeTokenizer.bundled(), Sudoku()
  (example,) = task.examples(path, tokenizer, max_tokens=100)
  assert sum(example.is_target) == PUZZLE.count("0")
  text = text_of(tokenizer, example.tokens)
  assert list(example.tokens) == tokenizer.encode_documents([text])[0], "as it is in training"
  right = task.judge(example, answer(example, own(example, tokenizer), tokenizer))
  assert right == dict(solved=True, right_cells=1.0)
  cells = own(example, tokenizer).split()
  swapped = "".join(f" {cell}" for cell in ("1" if cells[0] != "1" else "2", *cells[1:]))
  wrong = task.judge(example, answer(example, swapped, tokenizer))
  assert wrong == dict(solved=False, right_cells=7 / 8)
  assert task.summary([right, wrong]) == dict(solved=0.5, right_cells=15 / 16)
  with pytest.raises(ValueError, match="puzzle 1: 44 tokens, and 20 have room"):
    task.examples(path, tokenizer, max_tokens=20)


def test_a_causal_model_is_asked_for_given_cells_too_and_those_behind_the_blank_are_kept(tmp_path):
  path = write(tmp_path / "a.csv", f"Puzzle,Solution\n3002200002100322,{GRID[:15]}4\n")
  with pytest.raises(ValueError, match="row 2"):
    Sudoku().examples(path, BYTES, max_tokens=100)
  puzzle = PUZZLE[:14] + GRID[14:]
  path = write(tmp_path / "a.csv", f"Puzzle,Solution\n{puzzle},{GRID}\n")
  (example,) = Sudoku().examples(path, BYTES, max_tokens=200)
  seen = causal_view(example)
  assert text_of(BYTES, seen.tokens).endswith(" 1"), "what stands behind the blank is not seen"
  assert sum(seen.is_target) > sum(example.is_target)
  text = text_of(BYTES, seen.tokens)
  assert Sudoku().judge(example, Answer(seen.tokens, own(example), text))["solved"]


@pytest.mark.parametrize(
  ("expression", "made"),
  [
    ("(30 + 93) - 100", True),
    (" 30 + 93 - 100 ", True),
    ("93 - (100 - 30)", True),
    ("93 - 70", False),  # 70 is no number of the three
    ("30 + 93 - 99", False),
    ("100 - 93", False),
    ("30 + 93 - 100 + 30 - 30", False),  # twice
    ("30 + 93 - 100 = 23", False),
    ("", False),
    ("(30 + 93", False),
    ("30 ** 93", False),
    ("30 / (100 - 100)", False),
    ("30(93)", False),
    ("(" * 79 + "1", False),
    ("23", False),
  ],
)
def test_an_expression_makes_the_target_of_each_number_at_most_once(expression, made):
  assert countdown.makes(expression, [30, 100, 93], 23) == made


def test_division_is_exact():
  assert countdown.makes("1 / 3 * 3", [1, 3, 3], 1)
  assert not countdown.makes("7 / 2", [7, 2], 3)


def test_a_solution_is_found_where_there_is_one():
  assert countdown.solve([5], 5) == "5" and countdown.solve([5, 7], 4) is None
  for numbers in itertools.product((2, 3, 8), repeat=3):
    for target in (1, 10, 13):
      found = countdown.solve(numbers, target)
      assert found is None or countdown.makes(found, numbers, target), found
  assert countdown.solve([8, 3, 2], 13) and countdown.solve([2, 2, 2], 10) is None


def test_a_countdown_asks_for_the_expression(tmp_path):
  path = write(tmp_path / "a.jsonl", '{"input": "30,100,93", "output": "23"}\n')
  (example,) = Countdown().examples(path, BYTES, max_tokens=100)
  assert own(example) == " 30 - (100 - 93)"
  assert Countdown().judge(example, answer(example, own(example))) == dict(solved=True)
  assert Countdown().judge(example, answer(example, " 30 - (100 - 39)")) == dict(solved=False)


def test_puzzles_to_train_on_are_right_and_none_of_the_file(tmp_path):
  grids = write(tmp_path / "a.csv", f"Puzzle,Solution\n{PUZZLE},{GRID}\n")
  for text in training_texts("sudoku", grids, 50):
    puzzle, solution = (line.partition(":")[2].replace(" ", "") for line in text.splitlines())
    assert sudoku.solves(puzzle, solution) and puzzle != PUZZLE
  numbers = write(tmp_path / "a.jsonl", '{"input": "86,64,52", "output": "34"}\n')
  texts = training_texts("countdown", numbers, 20)
  for text in texts:
    given, target, solution = (line.partition(":")[2] for line in text.splitlines())
    assert countdown.makes(solution, json.loads(f"[{given}]"), int(target))
  # Without the file's problem held out it would be the first of this seed.
  other = write(tmp_path / "b.jsonl", '{"input": "1,2,3", "output": "6"}\n')
  assert "Numbers: 86, 64, 52\nTarget: 34" in training_texts("countdown", other, 1)[0]
  assert all("Numbers: 86, 64, 52\nTarget: 34" not in text for text in texts)
  with pytest.raises(ValueError, match="made of sudoku and countdown, not of lambada"):
    training_texts("lambada", numbers, 1)


def test_ids_that_the_tokenizer_does_not_have_stand_for_nothing():
  assert text_of(BYTES, [97, 257, 99999, 32]) == "a "


def test_entropy_is_of_the_unigrams():
  assert entropy([7, 7, 7]) == 0 and entropy([1, 1, 2, 2]) == 1 and entropy(range(8)) == 3
  assert entropy([1, 1, 1, 2]) == pytest.approx(0.811278, abs=1e-6)  # H(1/4)


def test_masked_text_is_scored_by_the_judge_beside_the_original(tmp_path):
  config = TransformerConfig(258, 16, 2, 1, 8, 16, uniform_layers(1), max_position=32)
  model = Model(config)
  judge = TextModel(model, model.init(jax.random.key(0)), BYTES)
  task = WikitextMasked(judge, rate=0.75)
  path = write(tmp_path / "wiki.txt", "one two three four five six\n")
  first, second = task.examples(path, BYTES, max_tokens=12)
  assert sum(first.is_target) == 9 and text_of(BYTES, first.tokens) == "one two thre"
  tokens = tuple(b"aaaaaaaaaaaa")
  record = task.judge(second, Answer(tokens, "", "aaaaaaaaaaaa"))
  assert record["entropy"] == 0 and record["reference_entropy"] == entropy(second.tokens)
  for name, text in (("judge", "aaaaaaaaaaaa"), ("reference", text_of(BYTES, second.tokens))):
    found = score(
      model, judge.params, [(list(text.encode()), 12)], start=256, length=32, context=16, batch=1
    )
    assert record[f"{name}_nats"] == pytest.approx(found.nats) and record[f"{name}_tokens"] == 12
  figures = task.summary([record, record])
  assert figures["generative_perplexity"] == pytest.approx(math.exp(record["judge_nats"] / 12))
  with pytest.raises(ValueError, match="holds 28 tokens, fewer than one row of 29"):
    task.examples(path, BYTES, max_tokens=29)


@pytest.mark.parametrize(
  ("task", "text", "message"),
  [
    (HumanEvalInfilling(), '{"task_id": "1", "prompt": "x"}', "line 1: no JSON record with text"),
    (Lambada(), '{"text": "one two"}\nno json', "line 2: no JSON record with text in text"),
    (Lambada(), "[1]", "line 1: no JSON record"),
    (Sudoku(), "a,b\n1,2", "begins with the line Puzzle,Solution"),
    (Sudoku(), "", "begins with the line"),
    (Sudoku(), f"Puzzle,Solution\n{PUZZLE},{GRID[:-1]}1", "row 2: no puzzle"),
    (Countdown(), '{"input": "1,x", "output": "3"}', "line 1: input or output holds no numbers"),
    (Countdown(), '{"input": "1,2", "output": "30"}', "30 cannot be made of"),
  ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, task, text, message):
  with pytest.raises(ValueError, match=message):
    task.examples(write(tmp_path / "file", text), BYTES, max_tokens=100)
  with pytest.raises(FileNotFoundError, match="there is no file"):
    task.examples(str(tmp_path / "nothing"), BYTES, max_tokens=100)


def test_files_are_checked_without_a_model_and_humaneval_itself_is_told_apart(tmp_path):
  own = {name: value for name, value in PROBLEM.items() if name != "suffix"}
  files = {
    "humaneval_infilling": json.dumps(PROBLEM),
    "sudoku": f"Puzzle,Solution\n{PUZZLE},{GRID}\n",
    "countdown": '{"input": "30,100,93", "output": "23"}',
    "lambada": '{"text": "one two"}',
    "wikitext_masked": "one two",
  }
  assert set(files) == set(NAMES)
  for name, text in files.items():
    check_data(name, write(tmp_path / "right.txt", text))
    with pytest.raises(FileNotFoundError, match="there is no file"):
      check_data(name, str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="empty.txt"):
      check_data(name, write(tmp_path / "empty.txt", ""))
  for name, text, message in (
    ("humaneval_infilling", json.dumps(own), "HumanEval itself.*HumanEval-SingleLineInfilling"),
    ("humaneval_infilling", '{"suffix": "x"}', "line 1: no JSON record with text in task_id"),
    ("lambada", '{"text": "word"}', "line 1: a passage of less than two words"),
    ("countdown", '{"input": "1,2", "output": "30"}', "line 1: 30 cannot be made of"),
    ("rocstories", "x", "task 'rocstories' is not one of humaneval_infilling, "),
  ):
    with pytest.raises(ValueError, match=message):
      check_data(name, write(tmp_path / "wrong.txt", text))


@pytest.mark.parametrize("cut", [slice(-12), slice(12), slice(4, None)])
def test_a_file_that_was_cut_or_is_damaged_is_named(tmp_path, cut):
  content = gzip.compress(b'{"text": "one two"}\n' * 50)
  (tmp_path / "data.jsonl.gz").write_bytes(content[cut])
  (tmp_path / "broken.jsonl.gz").write_bytes(content[:12] + b"\xff" * 8 + content[20:])
  for name in ("data", "broken"):
    with pytest.raises(ValueError, match=f"{name}.jsonl.gz is no text"):
      Lambada().examples(str(tmp_path / f"{name}.jsonl.gz"), BYTES, max_tokens=100)
