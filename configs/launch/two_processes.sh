#!/usr/bin/env bash
# Two processes on this machine, with two devices each that share its CPU: to try what several hosts do.
#
#   bash configs/launch/two_processes.sh --config=tiny --workdir=runs/two --config.mesh='(2,2)'
#
# Arguments are passed to experiments.train, or with PROGRAM=decode, infill or evaluate to that launcher. PROCESSES=2, DEVICES=2 (per process) and PORT=8476 may be set.
# Ctrl-C and SIGTERM reach every process: the state is saved, and the same command continues.
set -u
count="${PROCESSES:-2}"
address="localhost:${PORT:-8476}"
export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES="${DEVICES:-2}"

pids=()
for ((index = 0; index < count; index++)); do
  # Ctrl-C must not end what passes the last lines on. Gloo prints how many peers it has.
  python -m "experiments.${PROGRAM:-train}" --distributed="$address,$count,$index" "$@" \
    > >(trap '' INT; exec sed -u "/^\[Gloo\]/d; s/^/[$index] /") 2>&1 &
  pids+=($!)
  echo "process $index has the process id $!"
done
trap 'kill -TERM "${pids[@]}" 2>/dev/null' TERM INT

code=0
for index in "${!pids[@]}"; do
  # A trap ends `wait` early, and the process goes on.
  while wait "${pids[$index]}"; own=$?; kill -0 "${pids[$index]}" 2>/dev/null; do :; done
  echo "process $index has ended with exit code $own"
  ((code == 0)) && code=$own
done
exit "$code"
