#!/bin/sh
#SBATCH --job-name=gemmaq
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --mem=64G
#SBATCH --time=12:00:00
#SBATCH --requeue
# Calibrate a model with GPTQ on the nodes of a SLURM cluster; recipes/README.md says what a run takes.
#
#     sbatch recipes/slurm.sh my-org/my-finetune /shared/out
#
# Source, text and OUT must be on a file system that all nodes see. Each node needs torchrun on the PATH, from an
# environment with gemmaq[torch], and the nodes need processors of one kind (--constraint). A job that ends early, by its
# time limit too, goes on behind the last layer that is done: submit the same line again.
#
# PORT       a free port on the first node (by the job's number)
# OPTIONS    more of `gemmaq convert`: "--text my.txt --quant q4_0,iq4_nl --to gguf,mlx"
set -eu

source=${1:?which checkpoint: a folder, or a repository}
out=${2:?which folder to write, on a shared file system}
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"  # srun of some versions of SLURM does not take it over
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# shellcheck disable=SC2086
srun torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node 1 \
    --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$first:${PORT:-$((20000 + SLURM_JOB_ID % 10000))}" \
    -m gemmaq convert "$source" --method gptq --resume ${OPTIONS:-} -o "$out"
