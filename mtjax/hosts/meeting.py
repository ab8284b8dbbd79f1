"""The start of a job: processes meet within a bounded time, and check that they fit together."""

import functools
import importlib.metadata
import logging
import platform
import socket
import sys
import time

import jax

from mtjax.hosts import ending
from mtjax.hosts.agreement import check_equal
from mtjax.hosts.limits import HEARTBEAT_SECONDS, WAIT_SECONDS
from mtjax.hosts.place import ENVIRONMENTS, HostPlace

_PACKAGES = ("mtjax", "jax", "jaxlib", "orbax-checkpoint", "numpy")


def meet(place: HostPlace, *, heartbeat: int = HEARTBEAT_SECONDS, wait: int = WAIT_SECONDS) -> None:
  """Joins the job: afterwards `jax.devices()` are those of all processes. Call it before JAX runs.

  It is `jax.distributed.initialize`, with limits: all processes must come within `wait` seconds,
  and one that gives no sign of life for `heartbeat` seconds ends the job, with a message on those
  that are left (`mtjax.hosts.ending`). Prints one line that says which process this is. Raises
  ValueError if no environment is found, for other versions of the software than in process 0, and
  for unequal numbers of devices; OSError if the port is taken, or if nobody answers at it.
  """
  if heartbeat < 1 or wait < 1:
    raise ValueError(f"heartbeat and wait must be at least 1 second, got {heartbeat} and {wait}")
  begin = time.monotonic()
  if place.address:
    _check_port(place) if place.index == 0 else _wait_for(place, wait)
  left = max(1, wait - int(time.monotonic() - begin))
  with ending.starting(wait):
    _initialize(place, heartbeat, left)
  ending.running(heartbeat)
  devices, here = jax.devices(), jax.local_devices()
  _say(place, len(here), len(devices))
  _check_counts(devices)
  check_equal("software", {"python": platform.python_version(), **_versions()})


def _initialize(place: HostPlace, heartbeat: int, wait: int) -> None:
  initialize = functools.partial(
    jax.distributed.initialize,
    initialization_timeout=wait,
    heartbeat_timeout_seconds=heartbeat,
    shutdown_timeout_seconds=heartbeat,
  )
  if place.address:
    initialize(place.address, place.count, place.index, cluster_detection_method="deactivate")
    return
  # JAX logs that a named environment is missing, and raises a message of its own inner words.
  logging.getLogger("jax._src.clusters.cluster").setLevel(logging.CRITICAL)
  name = None if place.environment == "auto" else place.environment
  try:
    initialize(cluster_detection_method=name)
  except (ValueError, KeyError) as error:
    raise ValueError(
      f"--distributed={place.environment}: the environment does not say which process this is "
      f"({error}). JAX knows SLURM, Open MPI, Kubernetes (with jax[k8s]) and TPU hosts; elsewhere "
      f"give --distributed=HOST:PORT,COUNT,INDEX. Names: {', '.join(ENVIRONMENTS)}"
    ) from None


def _check_port(place: HostPlace) -> None:
  port = int(place.address.rpartition(":")[2])
  with socket.socket() as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      probe.bind(("", port))
    except OSError as error:
      raise OSError(
        f"process 0 cannot listen at port {port} ({error.strerror}): does a job still run there? "
        "Choose another port, the same for all processes"
      ) from None


def _wait_for(place: HostPlace, wait: int) -> None:
  """Waits until process 0 listens: JAX would end the process in its own words if it never does."""
  host, _, port = place.address.rpartition(":")
  deadline = time.monotonic() + wait
  while True:
    try:
      socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
      return
    except OSError as error:
      if time.monotonic() > deadline:
        raise OSError(
          f"nobody answers at {place.address} for {wait} s ({error}): start process 0 there, with "
          f"--distributed={place.address},{place.count},0, and let this machine reach that port"
        ) from None
    time.sleep(0.2)


def _say(place: HostPlace, here: int, total: int) -> None:
  where = f"coordinator {place.address}" if place.address else place.environment
  kind = jax.devices()[0].device_kind
  text = f"process {jax.process_index()} of {jax.process_count()} ({where})"
  print(f"{text}: {here} devices here ({kind}), {total} in all", file=sys.stderr, flush=True)


def _check_counts(devices) -> None:
  counts = [0] * jax.process_count()
  for device in devices:
    counts[device.process_index] += 1
  if len(set(counts)) > 1:
    shown = ", ".join(f"process {index}: {n}" for index, n in enumerate(counts))
    raise ValueError(f"processes must have equally many devices, but these differ: {shown}")


def _versions() -> dict[str, str]:
  out = {}
  for name in _PACKAGES:
    try:
      out[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      out[name] = "not installed"
  return out
