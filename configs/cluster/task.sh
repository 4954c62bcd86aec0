#!/usr/bin/env bash
# One process of slurm.sbatch, which hands a preempted run's exit code on.
#
# Code 85 must not reach srun: with --kill-on-bad-exit it would kill the processes that are still saving, and report
# their death instead. So it becomes a file, $THEWORLD_PREEMPTED, and code 0.
set -uo pipefail

: "${THEWORLD_PREEMPTED:?found it unset, expected to be started by slurm.sbatch}"
child= early=
hand_on() {
    if [ -n "$child" ]; then kill -"$1" "$child"; else early=$1; fi
}
# Without these the shell would die of the signal that announces the end, and its process with it.
trap 'hand_on USR1' USR1
trap 'hand_on TERM' TERM
theworld "$@" &
child=$!
[ -z "$early" ] || kill -"$early" "$child"
while true; do
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break  # else a signal has ended the wait, not the process
done
if [ "$code" -gt 128 ]; then
    # Of the signal that ended the wait, or of one that ended the process? bash keeps what the process left with.
    wait "$child"
    left=$?
    [ "$left" = 127 ] || code=$left
fi
if [ "$code" = 85 ]; then
    touch "$THEWORLD_PREEMPTED"
    exit 0
fi
exit "$code"
