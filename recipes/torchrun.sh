#!/bin/sh
# Calibrate a model with GPTQ on several machines, or by several processes of one.
#
#     recipes/torchrun.sh my-org/my-finetune out                                      # on this machine
#     NODES=2 NODE=0 FIRST=10.0.0.1 recipes/torchrun.sh my-org/my-finetune out        # on the first of two
#     NODES=2 NODE=1 FIRST=10.0.0.1 recipes/torchrun.sh my-org/my-finetune out        # on the second
#
# The first machine writes OUT, with the bytes that a single process would write; the others write nothing. All need the
# source and the text under the same names, processors of one kind, and torchrun on the PATH, from an environment with
# gemmaq[torch] in the same versions. recipes/README.md says what a run takes. If it is interrupted, the same lines go on
# behind the last layer that is done.
#
# PROCESSES  on each machine (1); its cores are divided among them
# NODES      number of machines (1), NODE the number of this one, from 0
# FIRST      name or address of the first machine, PORT a free port there (29400)
# OPTIONS    more of `gemmaq convert`: "--text my.txt --quant q4_0,iq4_nl --to gguf,mlx"
set -eu

source=${1:?which checkpoint: a folder, or a repository}
out=${2:?which folder to write}
case ${NODES:-1} in *[!0-9]*) echo "NODES is not a number: $NODES" >&2; exit 2 ;; esac
if [ "${NODES:-1}" -gt 1 ]; then
    set -- --nnodes "$NODES" --node-rank "${NODE:?which of them this one is, from 0}" \
        --master-addr "${FIRST:?which machine is the first}" --master-port "${PORT:-29400}"
else
    set -- --standalone
fi
# shellcheck disable=SC2086
exec torchrun "$@" --nproc-per-node "${PROCESSES:-1}" -m gemmaq convert "$source" --method gptq --resume \
    ${OPTIONS:-} -o "$out"
