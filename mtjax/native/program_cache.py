"""Compiled programs that persist between processes: JAX's cache, in the user's folder."""

import contextlib
import hashlib
import os
import shutil
import time
from importlib import metadata
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from mtjax.native import build

VARIABLE = "MTJAX_PROGRAM_CACHE"
OFF = "off"
MAX_BYTES = 1 << 30
# Programs that compile faster than this are not worth a file.
_MIN_SECONDS = 0.05
_MONTH = 30 * 24 * 3600


def keep_programs(where: str | None = None) -> Path | None:
  """Keeps what JAX compiles in this process for the next ones; returns the folder.

  where: a folder, or "off"; None: what MTJAX_PROGRAM_CACHE says, by default a folder in
  $XDG_CACHE_HOME (or ~/.cache)/mtjax/programs that belongs to this CPU, to these versions of mtjax
  and JAX, and to the sources of the native product. Beyond 1 GiB the programs that were not used
  for the longest time are deleted, as are folders of other versions after 30 days without use.

  Returns None, and changes nothing, if it is switched off, if JAX has a cache already
  (JAX_COMPILATION_CACHE_DIR or jax.config), or if the default folder cannot be written. Raises
  ValueError for a folder of the caller that cannot be written.
  """
  where = os.environ.get(VARIABLE) if where is None else where
  if where == OFF or jax.config.values["jax_compilation_cache_dir"] is not None:
    return None
  folder = Path(where).expanduser() if where else _default()
  try:
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
  except OSError as error:
    if where:
      raise ValueError(f"programs cannot be kept in {folder}: {error}") from None
    return None
  if not where:
    _forget_others(folder)
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_SECONDS)
  # JAX looks once per process whether there is a cache, and may have looked already.
  compilation_cache.reset_cache()
  return folder


def _default() -> Path:
  versions = [metadata.version(name) for name in ("jax", "jaxlib")]
  digest = hashlib.sha256("\0".join([*versions, build.fingerprint()]).encode()).hexdigest()
  return build.user_cache() / "programs" / digest[:16]


def _forget_others(folder: Path) -> None:
  for other in folder.parent.iterdir():
    # Another process may have deleted it.
    with contextlib.suppress(OSError):
      if other != folder and time.time() - other.stat().st_mtime > _MONTH:
        shutil.rmtree(other)
