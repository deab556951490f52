#!/bin/bash
# A sweep as a Slurm job array: every task is one `pipeline train` in a folder of its own.
#
#   sbatch docs/sweeps/slurm-array.sh
#
# Slurm sends SIGTERM 90 s before the time limit and before a preemption; training then writes a
# checkpoint and exits with status 143, and the requeued task goes on from it, because --resume
# starts at step 0 where there is no checkpoint and at the last one where there is.
#SBATCH --job-name=frostbit-sweep
#SBATCH --array=0-8
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@90
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=sweep-%a.log
set -uo pipefail

recipe=${RECIPE:-digits}
rates=(0.003 0.01 0.03)
seeds=(0 1 2)
rate=${rates[$((SLURM_ARRAY_TASK_ID / ${#seeds[@]}))]}
seed=${seeds[$((SLURM_ARRAY_TASK_ID % ${#seeds[@]}))]}
out=${OUT:-runs/sweep}/lr$rate-seed$seed
export FROSTBIT_THREADS=${SLURM_CPUS_PER_TASK:-1}

${SRUN-srun} python -m frostbit train --recipe "$recipe" --seed "$seed" \
    --set "lr_binary=$rate" --resume "$out" ${EXTRA:-}
status=$?
if [ "$status" -eq 143 ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$status"
