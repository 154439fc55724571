#!/bin/sh
# A step of a CI job: quantize a model, measure what that costs, and publish it if that is little enough.
#
#     recipes/ci.sh my-org/my-finetune my-org/my-finetune-GGUF
#
# Exit code 0: published. 8: a check or the gate failed, nothing was published. Others: see the last line on stderr. A
# second run makes nothing again that is finished. Measuring needs `gemmaq[torch]`, publishing a token in HF_TOKEN.
# recipes/github-actions.yml runs this script; any other CI system can, too.
#
# QUANT     type of the weights (q4_0)
# MAX_KL    largest mean KL divergence from the source, in nats (0.1)
# MIN_TOP1  smallest share of tokens that both predict alike (85%)
# TEXT      file to measure with (text of all kinds that comes with gemmaq)
# TOKENS    how many to score (4096)
# WORK      where the artifact is made (./artifact); the report is beside it, WORK.html
# DRY_RUN   1 to stop before publishing
set -eu

source=${1:?which checkpoint: a repository or a folder}
target=${2:?where to publish: org/name}
work=${WORK:-artifact}

[ -d "$work" ] || gemmaq convert "$source" --quant "${QUANT:-q4_0}" -o "$work"
gemmaq verify "$work" --against "$source"
gemmaq evaluate "$work" --reference "$source" ${TEXT:+--text "$TEXT"} --tokens "${TOKENS:-4096}" \
    --max-kl "${MAX_KL:-0.1}" --min-top1 "${MIN_TOP1:-85%}" --record --report "$work.html" --force
[ "${DRY_RUN:-0}" = 1 ] && set -- --dry-run || set --
gemmaq push "$work" "$target" "$@"
