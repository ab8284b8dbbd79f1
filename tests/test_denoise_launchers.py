"""mtjax-decode with methods that denoise, as users run it: what it shows, writes and refuses."""

import json
import re

import pytest

from mtjax.cli import decode
from mtjax.cli.denoising.launch import Wanted, denoise
from mtjax.cli.prompts import PromptRow
from mtjax.diffusion.traces.frames import CanvasFrame
from mtjax.evaluate.generative import TextQuality, judge_texts, load_judge
from mtjax.pretrained import load_pretrained
from mtjax.registry.denoising.methods import denoise_config, make_denoiser
from mtjax.text import TextModel
from tests import tiny_model
from tests.evaluate.pages import Reader
from tests.forked import launch

SMALL = ("--config.denoise.length=8", "--config.denoise.block_length=4", "--config.denoise.steps=4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The folder of a tiny masked model with random weights and the bundled tokenizer."""
  path = tmp_path_factory.mktemp("model") / "tiny"
  return tiny_model.save(path, **tiny_model.MASKED)


def test_a_canvas_is_shown_filling_in_and_kept(folder, tmp_path):
  out, page, html, gif = (tmp_path / name for name in ("a.json", "a.html", "b.html", "a.gif"))
  code, shown, errors = launch(
    "experiments.decode", "--config=configs/decode/llada.py", f"--config.model={folder}", *SMALL,
    "--prompt=Once upon", "--prompt=It was", "--stream", "--history", f"--output={out}",
    f"--html={html}", f"--gif={gif}",
  )  # fmt: skip
  assert code == 0, errors
  run = json.loads(out.read_text())
  assert run["complete"] and run["passes"] == [4, 4] and run["num_passes"] == 4
  assert shown.startswith("[0] Once upon\n") and "\n\n[1] It was\n" in shown
  assert run["settings"]["denoise"]["transfer"] == "llada_counts"
  lines = [line for line in errors.splitlines() if line.startswith("pass ")]
  assert [line.split(":")[0] for line in lines] == [f"pass {number}" for number in range(5)]
  assert lines[0].count("░") == 16 and "░" not in lines[-1]
  assert "approximate: " in errors and "tokens per forward" in errors
  for row, canvas in zip(run["rows"], run["canvases"], strict=True):
    last = {place: token for _, place, token in canvas["changes"]}
    assert [last[place] for place in range(8)][: len(row["tokens"])] == row["tokens"]
  assert gif.read_bytes()[:6] == b"GIF89a"
  code, _, errors = launch("experiments.history", f"--run={out}", f"--page={page}")
  assert code == 0 and page.read_text() == html.read_text(), errors
  assert len(Reader(page.read_text()).all("span", data_entry=...)) == 16


def test_without_a_stream_the_text_is_the_same_and_only_that_is_printed(folder, tmp_path):
  texts = []
  for number, more in enumerate(((), ("--stream", "--history"))):
    out = tmp_path / f"{number}.json"
    code, shown, errors = launch(
      "experiments.decode", "--config=dream", f"--config.model={folder}", *SMALL,
      "--config.denoise.order=sampled_probability", "--prompt=Once upon", f"--output={out}", *more,
    )  # fmt: skip
    assert code == 0, errors
    run = json.loads(out.read_text())
    assert shown == run["rows"][0]["text"] + "\n"
    assert ("canvases" in run) == bool(more) == ("pass 1:" in errors)
    texts.append((run["rows"], run["decided_at"], run["passes"]))
  assert texts[0] == texts[1]


@pytest.mark.parametrize("name", ["wino", "block"])
def test_shadow_entries_and_blocks_of_the_model(tmp_path, name):
  out, blocks = tmp_path / "run.json", dict(block_length=4) if name == "block" else {}
  path = tiny_model.save(tmp_path / "model", **tiny_model.MASKED, **blocks)
  code, shown, errors = launch(
    "experiments.decode", f"--config=configs/decode/{name}.py", f"--config.model={path}",
    "--config.denoise.length=8", "--config.denoise.steps=8", "--prompt=Once upon",
    f"--output={out}", *([] if blocks else ["--config.denoise.block_length=4"]),
  )  # fmt: skip
  assert code == 0, errors
  run = json.loads(out.read_text())
  assert shown == run["rows"][0]["text"] + "\n" and len(run["rows"][0]["tokens"]) == 8
  assert "approximate: " in errors


# All of them are made by name and streamed in tests/diffusion/test_texts.py.
@pytest.mark.parametrize(
  "name",
  [
    "llada21",
    pytest.param("d2f", marks=pytest.mark.slow),
    pytest.param("multi_bd", marks=pytest.mark.slow),
    "fast_dllm_v2",
  ],
)
def test_methods_of_block_causal_models(tmp_path, name):
  out, gif = tmp_path / "run.json", tmp_path / "run.gif"
  shifted = dict(alignment="shifted") if name == "fast_dllm_v2" else {}
  path = tiny_model.save(tmp_path / "model", **tiny_model.MASKED, block_length=8, **shifted)
  code, shown, errors = launch(
    "experiments.decode", f"--config=configs/decode/{name}.py", f"--config.model={path}",
    "--config.denoise.length=16", *(["--config.denoise.steps=16"] if name == "llada21" else []),
    "--prompt=Once upon", f"--output={out}", f"--gif={gif}",
  )  # fmt: skip
  assert code == 0, errors
  run = json.loads(out.read_text())
  assert shown == run["rows"][0]["text"] + "\n" and len(run["rows"][0]["tokens"]) == 16
  assert "approximate: " in errors and gif.read_bytes()[:6] == b"GIF89a"


def test_a_causal_model_beside_the_masked_one(folder, tmp_path):
  out, causal = tmp_path / "run.json", tiny_model.save(tmp_path / "causal")
  code, shown, errors = launch(
    "experiments.decode", "--config=apd", f"--config.model={folder}", "--config.denoise.length=8",
    f"--config.denoise.causal={causal}", "--prompt=Once upon", f"--output={out}", "--history",
    f"--judge={causal}",
  )  # fmt: skip
  assert code == 0, errors
  run = json.loads(out.read_text())
  assert shown == run["rows"][0]["text"] + "\n" and run["counters"]["causal_forwards"] > 0
  assert "approximate: the first token of each pass" in errors
  # The judge reads the text after its prompt; the entropy stands beside the perplexity.
  quality, judge = run["quality"], load_judge(str(causal))
  expected = TextQuality.of(judge_texts(judge, [run["rows"][0]["text"]], ["Once upon"]))
  assert quality["judge"] == str(causal) and quality["entropy"] == expected.entropy
  assert quality["bits_per_byte"] == pytest.approx(expected.bits_per_byte, rel=1e-5)
  assert f"entropy {expected.entropy:.2f}" in " ".join(errors.split())


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--config=apd", "--config.denoise.causal=masked"], "the model that accepts drafts is a mask"),
    (["--config=apd", "--config.denoise.mixture=2"], "mixture must be at least 0.0, at most 1.0"),
    (["--config=llada", "--config.model=masket"], "there is no model 'masket'; it must be a bund"),
    (["--config=llada", "--config.model=target"], "needs a masked model, .*: 'target' predicts"),
    (["--config=lada"], "'lada' is not one of: ar, .*; those that denoise are: llada, dream"),
    (["--config=llada", "--config.denoise.step=3"], "no field 'denoise.step'; did you mean denoi"),
    (["--config=llada", "--config.denoise.steps=1"], "steps must be at least the number of blocks"),
    (["--config=llada", "--config.denoise.block_length=7"], "must be a multiple of block_length"),
    (["--config=llada", "--config.denoise.steps=33"], "steps must be a multiple of the number of"),
    (
      ["--config=fast_dllm", "--config.denoise.transfer=threshold:threshold=1.5"],
      "'threshold': threshold must be above 0.0, at most 1.0: got 1.5",
    ),
    (
      ["--config=fast_dllm", "--config.denoise.transfer=threshold:threshold=0"],
      "threshold must be above 0.0, at most 1.0: got 0",
    ),
    (
      ["--config=llada", "--config.denoise.cache=stale"],
      "cache 'stale' is not one of: none, exact",
    ),
    (
      ["--config=block", "--config.model="],
      "no model is bundled for this method: give a block-causal one",
    ),
    (["--config=d2f", "--config.model="], "method: give a block-causal one as --config.model"),
    (
      ["--config=fast_dllm_v2", "--config.model="],
      "give a block-causal one with shifted logits",
    ),
    (["--config=d2f"], "a pipeline of blocks needs a block-causal network"),
    (["--config=d2f", "--config.denoise.machine=pipeline:adds=1"], "has no setting adds; it has"),
    (["--config=d2f", "--config.denoise.steps=4"], "no field 'denoise.steps'"),
    (["--config=llada", "--config.denoise.cache=exact"], "only a block-causal model has an exact"),
    (["--config=llada", "--prompt=" + "word " * 250], "the model has 256 positions"),
    (["--config=llada", "--config.temperature=-1"], "temperature must be at least 0"),
    (["--config=llada", "--config.prompt_format=chat"], "no chat template"),
    (["--config=llada", "--gif=a.png"], "an animated picture is a .gif, by its suffix: got 'a.p"),
    (["--config=llada", "--gif=nowhere/a.gif"], "there is no folder 'nowhere' for --gif"),
    (["--config=llada", "--audit", "--rounds=2"], "denoises, --audit and --rounds would do noth"),
    (["--config=ar", "--gif=a.gif", "--stream"], "decodes, ar, --stream and --gif would do noth"),
    (["--config=ar", "--compare=ar,llada"], "'llada' denoises canvases: run it as mtjax-decode"),
    (["--config=ar"], "a masked model"),
  ],
)
def test_a_mistake_is_answered_with_one_line(folder, arguments, message):
  if not any(argument.startswith("--config.model") for argument in arguments):
    arguments = [*arguments, f"--config.model={folder}"]
  if not any(argument.startswith("--prompt=") for argument in arguments):
    arguments = [*arguments, "--prompt=a"]
  code, _, errors = launch("experiments.decode", *arguments)
  (line,) = errors.splitlines()
  assert code == 2 and line.startswith("mtjax: ")
  assert re.search(message, line), line


def test_lines_of_prompts_have_seeds_and_settings_of_their_own(folder, tmp_path):
  alone, prompts = {}, tmp_path / "prompts.jsonl"
  settings = ("experiments.decode", "--config=mdlm", f"--config.model={folder}", *SMALL)
  warm, cold = "--config.temperature=1", "--config.temperature=0"
  for name, more in dict(seed=(warm, "--config.seed=7"), cold=(cold, "--config.seed=3")).items():
    out = tmp_path / "alone.json"
    code, _, errors = launch(*settings, "--prompt=It was", f"--output={out}", *more)
    assert code == 0, errors
    alone[name] = json.loads(out.read_text())["rows"][0]["tokens"]
  lines = [{"prompt": "Once upon"}, {"prompt": "It was", "seed": 7}]
  lines += [{"prompt": "It was"}, {"prompt": "It was", "temperature": 0, "seed": 3}]
  prompts.write_text("\n".join(map(json.dumps, lines)))
  out = tmp_path / "batch.json"
  code, _, errors = launch(*settings, warm, f"--prompts={prompts}", f"--output={out}")
  assert code == 0, errors
  rows = json.loads(out.read_text())["rows"]
  assert [row.get("settings") for row in rows] == [
    None,
    {"seed": 7},
    None,
    {"temperature": 0, "seed": 3},
  ]
  assert rows[1]["tokens"] == alone["seed"] != rows[2]["tokens"]
  assert rows[3]["tokens"] == alone["cold"]


@pytest.mark.parametrize(
  ("config", "line", "message"),
  [
    (
      "llada",
      '"sed": 1',
      "line 2: unknown field 'sed'; a line has prompt, and may have seed, temp",
    ),
    ("llada", '"seed": -1', "line 2: a seed is a whole number from 0 to"),
    ("llada", '"seed": "1"', "line 2: .* must be a whole number, got '1'"),
    ("llada", '"temperature": "warm"', "line 2: temperature must be a number, got 'warm'"),
    ("llada", '"top_k": 1.5', "line 2: top_k must be a whole number, got 1.5"),
    ("llada", '"top_p": 0', "line 2: top_p must be above 0"),
    ("ar", '"seed": 1', "line 2: a method that decodes has the same settings for all prompts"),
  ],
)
def test_a_mistake_in_a_line_of_prompts_is_named(folder, tmp_path, config, line, message):
  prompts = tmp_path / "prompts.jsonl"
  prompts.write_text('{"prompt": "a"}\n{"prompt": "b", ' + line + "}\n")
  code, _, errors = launch(
    "experiments.decode", f"--config={config}", f"--config.model={folder}", f"--prompts={prompts}"
  )
  (shown,) = errors.splitlines()
  assert code == 2 and re.search(message, shown), shown


@pytest.mark.parametrize(
  ("config", "predicts", "message"),
  [
    ("llada", "masked", "this masked model has no mask: set mask_id to a token of the vocabulary"),
    ("set", "any_subset", "has no embedding for masks: give the name 'query' to an extra embedd"),
  ],
)
def test_a_model_without_a_mask_is_refused(tmp_path, config, predicts, message):
  fields = dict(predicts=predicts, extra_embeddings=1, extra_names=("sink",))
  path = tiny_model.save(tmp_path / "m", **{**tiny_model.MASKED, **fields})
  arguments = (f"--config={config}", f"--config.model={path}", "--prompt=a")
  code, _, errors = launch("experiments.decode", *arguments)
  (line,) = errors.splitlines()
  assert code == 2 and message in line


def test_a_stopped_run_leaves_the_page_of_its_passes(folder, tmp_path, monkeypatch, capsys):
  page, gif = tmp_path / "run.html", tmp_path / "run.gif"

  def stopped(self, prompts, *, on_pass, **settings):
    on_pass(CanvasFrame(0, [[None, None]], [[0, 0]]))
    on_pass(CanvasFrame(1, [[None, 7]], [[0, 1]]))
    raise KeyboardInterrupt

  monkeypatch.setattr(TextModel, "denoise", stopped)
  config = denoise_config("llada")
  with pytest.raises(KeyboardInterrupt):
    denoise(
      config, make_denoiser(config), load_pretrained(str(folder)), ["a"],
      Wanted(html=str(page), gif=str(gif)), rows=[PromptRow("a", {}, "")],
    )  # fmt: skip
  kinds = [attrs["class"] for attrs, _ in Reader(page.read_text()).all("span", data_entry=...)]
  assert ["open" in kind for kind in kinds] == [True, False]
  assert "stopped before" in page.read_text() and not gif.exists()
  assert "holds what was finished before this" in capsys.readouterr().err


def test_help_tells_of_canvases():
  assert "--config=llada" in decode.__doc__ and "forward passes, those of all" in decode.__doc__
