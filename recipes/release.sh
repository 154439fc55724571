#!/bin/sh
# Release a Gemma checkpoint for every runtime: fetch, convert once, check, publish.
#
#     recipes/release.sh google/gemma-3-4b-it-qat-q4_0-unquantized my-org/gemma-3-4b-it-qat
#
# makes my-org/gemma-3-4b-it-qat-GGUF, -MLX and -W4A16. It can be run again at any time: what was fetched is kept, an
# artifact that was finished is not made again, and files that a repository has already are not sent again.
#
# WORK      where artifacts are made (./release)
# QUANT     type of the weights (q4_0)
# DRAFT     drafter to publish beside the GGUF model, a repository or a folder (none)
# CONTEXTS  tokens to estimate memory for ("8192 32768")
# DRY_RUN   1 to stop before publishing
set -u

source=${1:?which checkpoint: a repository or a folder}
target=${2:?where to publish: org/name}
work=${WORK:-release}
quant=${QUANT:-q4_0}
contexts=${CONTEXTS:-8192 32768}

say() { printf '%s\n' "$*" >&2; }

# What gemmaq's exit codes mean to a pipeline.
run() {
    "$@"
    code=$?
    case $code in
        0) return 0 ;;
        4) say "no access to $source: accept its terms on the Hub and set HF_TOKEN" ;;
        6) say "the network failed; run this again, it goes on where it stopped" ;;
        7) say "cannot write to $work: is the disk full?" ;;
        8) say "VERIFICATION FAILED, nothing was published" ;;
        130 | 143) say "interrupted; run this again, it goes on where it stopped" ;;
    esac
    say "failed ($code): $*"
    exit "$code"
}

# 1. Fetch the checkpoint into the Hub's cache, checked against its digests. A local folder needs no fetching.
[ -d "$source" ] || run gemmaq pull "$source" -q >/dev/null

# 2. What it will take to run, for the log.
for context in $contexts; do
    run gemmaq estimate-vram "$source" --quant "$quant" --context "$context" ${DRAFT:+--draft "$DRAFT"}
done

# 3. One pass over the weights makes all three artifacts, with the same codes in each.
if [ ! -d "$work" ]; then
    run gemmaq convert "$source" ${DRAFT:+--draft "$DRAFT"} --to gguf --to mlx --to safetensors --quant "$quant" \
        -o "$work" -q
fi

# 4. Every file is what it was when it was made, and every tensor is what the source gives.
run gemmaq verify "$work" --against "$source" ${DRAFT:+--draft "$DRAFT"}

# 5. Publish each under the name its users look for.
[ "${DRY_RUN:-0}" = 1 ] && set -- --dry-run || set --
run gemmaq push "$work/gguf" "$target-GGUF" "$@"
run gemmaq push "$work/mlx" "$target-MLX" "$@"
run gemmaq push "$work/safetensors" "$target-W4A16" "$@"
say "done"
