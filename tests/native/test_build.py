"""Compiling on first use: the cache, refusals with their reasons, and builds at the same time."""

import concurrent.futures
import ctypes
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from mtjax.native import build
from mtjax.native.bandwidth import measure_bandwidth

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """Returns an empty cache folder."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.delenv("CXX", raising=False)
  return tmp_path / "cache" / "mtjax" / "native"


@pytest.fixture
def compiler(tmp_path, monkeypatch):
  """Returns a function that makes a shell script the compiler; its output belongs in $out."""

  def install(script):
    path = tmp_path / "fake-cxx"
    find = 'while [ "$1" != -o ]; do shift; done\nout="$2"\n'
    path.write_text(f"#!/bin/sh\n{find}{script}\n", encoding="ascii")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("CXX", str(path))

  return install


def test_no_compiler(cache, monkeypatch):
  monkeypatch.setenv("PATH", "")
  with pytest.raises(build.Unavailable, match="no C.. compiler on PATH .* install one"):
    build.build()


def test_a_compiler_that_does_not_exist(cache, monkeypatch):
  monkeypatch.setenv("CXX", "/nowhere/c++")
  with pytest.raises(build.Unavailable, match="/nowhere/c.. does not run"):
    build.build()
  assert not list(cache.iterdir())


def test_an_error_of_the_compiler_is_the_reason(cache, compiler):
  compiler("echo 'in file x' >&2; echo 'x.cc:1: error: no such thing' >&2; exit 1")
  with pytest.raises(build.Unavailable, match="failed: x.cc:1: error: no such thing"):
    build.build()
  assert not list(cache.iterdir()), "a failed build must leave nothing"


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
  (tmp_path / "file").write_text("")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
  with pytest.raises(build.Unavailable, match="set XDG_CACHE_HOME"):
    build.build()


def test_builds_at_once_each_see_a_whole_library(native, cache, compiler):
  library = native._name
  compiler(
    f'echo run >> {cache}/../log\nhead -c 9999 {library} > "$out"\nsleep 0.3\n'
    f'tail -c +10000 {library} >> "$out"'
  )
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    paths = [future.result() for future in [pool.submit(build.build) for _ in range(4)]]
  assert len(set(paths)) == 1
  assert paths[0].read_bytes() == Path(library).read_bytes()
  ctypes.CDLL(str(paths[0]))
  assert list(cache.iterdir()) == [paths[0]], "temporary files stay behind"
  runs = (cache.parent / "log").read_text()
  assert build.build() == paths[0]
  assert (cache.parent / "log").read_text() == runs, "a cached library was compiled again"


def test_a_process_that_is_killed_while_it_builds_leaves_nothing_that_counts(
  native, cache, compiler
):
  compiler(f'head -c 9999 {native._name} > "$out"\nkill -9 $PPID')
  code = "from mtjax.native import build; build.build()"
  run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
  assert run.returncode == -signal.SIGKILL
  (left,) = cache.iterdir()
  assert left.suffix == ".tmp"
  compiler(f'cp {native._name} "$out"')
  path = build.build()
  ctypes.CDLL(str(path))
  assert left.exists(), "it may be that of another process, which is at work"
  os.utime(left, (0, 0))
  path.unlink()
  assert build.build() == path and list(cache.iterdir()) == [path]


def test_the_compiler_has_little_to_read():
  """To compile on first use costs time to the first token, and headers were most of that.

  Headers of threads, clocks and XLA's C++ interface make it 3.5 MB. Those of intrinsics, which some
  CPUs need, are left out by compiling for the oldest.
  """
  compiler = build._compiler()
  if compiler is None:
    pytest.skip("there is no C++ compiler")
  source = build._SOURCES / "small_matmul.cc"
  command = [*compiler, *build._FLAGS, f"-I{jax.ffi.include_dir()}", "-E", "-P", str(source)]
  assert len(subprocess.run(command, capture_output=True, check=True).stdout) < 1_500_000


def test_another_source_or_machine_is_another_library(monkeypatch):
  keys = {build._key([])}
  keys.add(build._key(["-O2"]))
  monkeypatch.setattr(build, "_cpu", lambda: ["another"])
  keys.add(build._key([]))
  monkeypatch.setattr(build, "_SOURCES", Path(__file__).parent)
  keys.add(build._key([]))
  assert len(keys) == 4


def test_switched_off(monkeypatch):
  monkeypatch.setenv("MTJAX_NATIVE", "off")
  with pytest.raises(build.Unavailable, match="MTJAX_NATIVE=off"):
    build.library.__wrapped__()


def test_threads_follow_the_affinity_and_the_variable(monkeypatch):
  monkeypatch.delenv("MTJAX_NATIVE_THREADS", raising=False)
  monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
  assert build._threads() == 1
  monkeypatch.setenv("MTJAX_NATIVE_THREADS", "5")
  assert build._threads() == 5
  monkeypatch.setenv("MTJAX_NATIVE_THREADS", "many")
  with pytest.raises(ValueError, match="'many'"):
    build._threads()
  with pytest.raises(ValueError, match="threads must be at least 1"):
    build.set_threads(0)


def test_where_the_system_has_no_affinity_all_cores_may_be_used(monkeypatch):
  monkeypatch.delattr(os, "sched_getaffinity", raising=False)
  monkeypatch.setattr(os, "cpu_count", lambda: None)
  assert build.allowed_cores() == 1


def test_bandwidth_is_measured(native):
  before = build.threads()
  assert 0.1 < measure_bandwidth(1 << 20, threads=1, seconds=0.01) < 10_000
  assert build.threads() == before
  with pytest.raises(ValueError, match="64 KiB"):
    measure_bandwidth(1000)


def test_bandwidth_is_measured_without_a_compiler_too(monkeypatch):
  monkeypatch.setattr(build, "unavailable", lambda: "there is no compiler")
  monkeypatch.setattr(build, "library", lambda: pytest.fail("the library was used"))
  assert 0.1 < measure_bandwidth(1 << 20, seconds=0.01) < 10_000


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["-mno-avx512vnni", "-mno-avx512f", "-mno-avx"])
def test_other_instruction_sets(flag, tmp_path):
  """Compiles the code of older x86 and other CPUs, and runs the tests of what it computes."""
  name = build._compiler()
  if name is None:
    pytest.skip("there is no C++ compiler")
  environment = dict(os.environ, CXX=f"{name[0]} {flag}", XDG_CACHE_HOME=str(tmp_path))
  tests = [str(ROOT / "tests" / "native" / f"test_{name}.py") for name in ("matmul", "attention")]
  run = subprocess.run(
    [sys.executable, "-m", "pytest", "-q", *tests],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert run.returncode == 0 and "skipped" not in run.stdout, run.stdout[-3000:]
