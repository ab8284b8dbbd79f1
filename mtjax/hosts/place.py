"""The place of a process in a job, as a flag says it: how many there are, and which one it is."""

import dataclasses
import os
from collections.abc import Mapping

# Environments that JAX reads by itself; "auto" tries them all, and those of TPUs and Kubernetes.
ENVIRONMENTS = ("auto", "slurm", "ompi", "mpi4py")
_EXAMPLE = "10.0.0.1:8476,2,0"
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")


@dataclasses.dataclass(frozen=True)
class HostPlace:
  """Either the name of an environment, or the coordinator's address with count and index."""

  environment: str = ""  # one of ENVIRONMENTS; "": the other fields say it
  address: str = ""  # HOST:PORT at which process 0 waits for the others
  count: int = 1
  index: int = 0

  @classmethod
  def parse(cls, text: str, environ: Mapping[str, str] = os.environ) -> "HostPlace":
    """Returns the place that `text` says: a name of ENVIRONMENTS, or HOST:PORT,COUNT,INDEX.

    Raises ValueError, with what would be right, for anything else, for "slurm" outside of `srun`,
    and for an index that is not below the count.
    """
    if text in ENVIRONMENTS:
      _check_slurm(text, environ)
      return cls(environment=text)
    parts = text.split(",")
    host, _, port = parts[0].rpartition(":")
    if len(parts) != 3 or not host or not all(part.isdecimal() for part in (port, *parts[1:])):
      raise ValueError(
        f"--distributed={text!r} is not one of {', '.join(ENVIRONMENTS)}, and it is not "
        f"HOST:PORT,COUNT,INDEX, such as {_EXAMPLE}: the address of process 0, the number of "
        "processes, and which of them this one is, from 0"
      )
    count, index = int(parts[1]), int(parts[2])
    if not 0 < int(port) < 1 << 16:
      raise ValueError(f"--distributed={text!r}: a port is from 1 to 65535, got {port}")
    if count < 1:
      raise ValueError(f"--distributed={text!r}: the number of processes is at least 1, got 0")
    if index >= count:
      raise ValueError(
        f"--distributed={text!r}: the index of a process is from 0 to COUNT - 1 = {count - 1}, "
        f"got {index}"
      )
    return cls(address=parts[0], count=count, index=index)


def _check_slurm(name: str, environ: Mapping[str, str]) -> None:
  missing = [variable for variable in _SLURM if variable not in environ]
  in_job = "SLURM_JOB_ID" in environ
  # A batch script's own shell has a job, but no step: JAX would not find SLURM and blame no one.
  if missing and (name == "slurm" or (name == "auto" and in_job)):
    raise ValueError(
      f"--distributed={name}: the environment lacks {', '.join(missing)}, which SLURM sets for "
      "each task of a step. Start the command with srun, within sbatch or salloc"
    )
