"""Config files that fail: one line names the file and says what is wrong in it."""

import pytest
from absl import flags
from ml_collections import ConfigDict

from mtjax.cli.config_file import ConfigError, ConfigFile, lacks_field
from mtjax.cli.method_names import method_config
from mtjax.registry.configs import decode_config
from mtjax.registry.methods import decoding
from mtjax.train.defaults import named
from tests import forked
from tests.test_launchers import ROOT

HEAD = "from ml_collections import ConfigDict\n"


def write(tmp_path, content):
  file = tmp_path / "mine.py"
  file.write_bytes(content if isinstance(content, bytes) else content.encode())
  return file


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("def get_config(:\n", "failed, line 1: SyntaxError: invalid syntax"),
    (bytes(range(256)), "failed.*SyntaxError"),
    ("", r"it has no function get_config\(\)"),
    ("get_config = 3", r"it has no function get_config\(\)"),
    ("import no_such_module", "line 1: ModuleNotFoundError: No module named 'no_such_module'"),
    ("def get_config():\n  return {}['missing']", "failed, line 2: KeyError: 'missing'"),
    ("def get_config():\n  return open('/no/such')", "line 2: FileNotFoundError: .*'/no/such'"),
    ("def get_config():\n  return get_config()", "failed, line 2: RecursionError"),
    ("def get_config():\n  exit('leaving')", "failed, line 2: SystemExit: leaving"),
    ("def get_config():\n  pass", r"its get_config\(\) must return a ConfigDict, not NoneType"),
    (
      "def get_config():\n  return dict(a=1)",
      r"its get_config\(\) must return a ConfigDict, not dict",
    ),
    ("def get_config(name):\n  pass", r"its get_config\(\) takes an argument, as --config="),
  ],
)
def test_a_config_file_that_fails_is_named(tmp_path, content, message):
  file = write(tmp_path, content)
  with pytest.raises(ConfigError, match=f"^config file '{file}'.*{message}"):
    ConfigFile().parse(str(file))


def test_a_syntax_error_of_an_imported_module_is_said_to_be_there(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(tmp_path)
  (tmp_path / "broken_helper.py").write_text("x = 1\nx = = 2\n")
  file = write(tmp_path, "import broken_helper")
  with pytest.raises(ConfigError, match="mine.py' failed by importing .*helper.py', line 2"):
    ConfigFile().parse(str(file))


def test_files_that_are_not_there_or_take_no_argument(tmp_path):
  with pytest.raises(ConfigError, match="'nowhere.py' does not exist"):
    ConfigFile().parse("nowhere.py:lookup")
  with pytest.raises(ConfigError, match="is a folder"):
    ConfigFile().parse(str(tmp_path))
  file = write(tmp_path, HEAD + "def get_config():\n  return ConfigDict()")
  with pytest.raises(ConfigError, match=r"its get_config\(\) takes no argument"):
    ConfigFile().parse(f"{file}:lookup")


def test_a_config_file_is_run_once_and_locked(tmp_path):
  parser = ConfigFile()
  counted = "open(__file__ + '.runs', 'a').write('x')\n"
  content = HEAD + counted + "def get_config(size):\n  return ConfigDict(dict(size=int(size)))"
  file = write(tmp_path, content)
  values = flags.FlagValues()
  flags.DEFINE(parser, "config", None, "", flag_values=values)
  values(["a.py", f"--config={file}:3"])
  assert values["config"].value.size == 3 and values["config"].value.is_locked
  assert parser.config is values["config"].value
  assert (tmp_path / "mine.py.runs").read_text() == "x"


@pytest.mark.parametrize("name", decoding())
def test_a_method_by_name_is_its_config_locked(name):
  parser = ConfigFile(method_config)
  config = parser.parse(name)
  assert config.to_dict() == decode_config(name).to_dict()
  assert config.is_locked and (parser.path, parser.config) == (name, config)


def test_auto_takes_the_drafter_after_its_name():
  assert ConfigFile(method_config).parse("auto:trie").of == "trie"
  with pytest.raises(ConfigError, match="--config=lookup:trie is .* takes no argument; only"):
    ConfigFile(method_config).parse("lookup:trie")
  with pytest.raises(ConfigError, match="as a name: drafter 'magic' is not one of"):
    ConfigFile(method_config).parse("auto:magic")


def test_a_name_is_no_path_and_a_path_no_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "lookup").mkdir()
  assert ConfigFile(method_config).parse("lookup").method == "lookup"
  file = write(tmp_path, HEAD + "def get_config():\n  return ConfigDict(dict(a=1))")
  for path in (file, file.name):
    assert ConfigFile(method_config).parse(str(path)).a == 1
  with pytest.raises(ConfigError, match="config file 'lookup' is a folder"):
    ConfigFile().parse("lookup")
  with pytest.raises(ConfigError, match="config file 'configs/decode/ar' does not exist"):
    ConfigFile(method_config).parse("configs/decode/ar")


def test_the_packaged_training_config_is_the_one_of_the_file():
  file = str(ROOT / "configs/train/tiny.py")
  assert ConfigFile(named).parse("tiny").to_dict() == ConfigFile().parse(file).to_dict()


def test_only_what_a_config_raises_is_a_missing_field():
  for ask, is_config in (
    (lambda: ConfigDict(dict(a=1)).b, True),
    (lambda: ConfigDict(dict(a=1))["b"], True),
    (lambda: {}["b"], False),
    (lambda: (1).b, False),
  ):
    with pytest.raises((AttributeError, KeyError)) as caught:
      ask()
    assert lacks_field(caught.value) == is_config


def test_launchers_end_with_one_line_and_exit_code_2(tmp_path):
  bare = HEAD + "def get_config():\n  return ConfigDict(dict(max_tokens=3))"
  for content, message in (
    ("def get_config():\n  return 1 / 0", "line 2: ZeroDivisionError: division by zero"),
    (bare, "the config lacks a field: "),
  ):
    file = write(tmp_path, content)
    code, shown, errors = forked.launch("experiments.decode", "--config", str(file), "--prompt=a")
    assert code == 2 and message in errors and not shown
    assert errors.startswith("mtjax: ") and errors.count("\n") == 1, errors
