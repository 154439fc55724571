#!/bin/sh
# Train a Gemma 3 fine-tune of your own for int4, and show what it gained.
#
#     recipes/qat.sh my-finetune train.jsonl held-out.txt
#
# makes qat/trained (BF16, its weights on the int4 grid) and qat/gguf and qat/mlx of it, and measures plain rounding,
# GPTQ and training side by side on the held-out text: qat/quality.html. Run again after an interruption, it goes on
# where it stopped.
#
# WORK     where everything is made (./qat)
# STEPS    of training (200)
# OPTIONS  more of `gemmaq qat`: "--batch 4 --context 512", "--block-wise", "--device cuda"
set -eu

source=${1:?which model: a folder or a repository}
text=${2:?what to train on: plain text, or .jsonl with a conversation or a text a line}
held=${3:?what to measure with: text that is not trained on}
work=${WORK:-qat}
mkdir -p "$work"

# 1. Plain rounding, to compare with; and GPTQ, the place to begin: training moves its codes, its scales stay.
[ -d "$work/nearest" ] || gemmaq convert "$source" --method nearest --to gguf -o "$work/nearest" -q
[ -d "$work/gptq" ] || gemmaq convert "$source" --method gptq --portable --text "$text" --to gguf -o "$work/gptq" -q

# 2. Training. An interrupted run left its state next to the folder; --resume continues from it.
if [ ! -d "$work/trained" ]; then
    [ -d "$work/trained.work" ] && set -- --resume || set --
    # shellcheck disable=SC2086
    gemmaq qat "$source" --text "$text" --start "$(ls "$work"/gptq/*.gguf)" --steps "${STEPS:-200}" ${OPTIONS:-} \
        -o "$work/trained" "$@"
fi

# 3. The trained codes, in every runtime, and the proof that they are the trained ones.
if [ ! -d "$work/runtimes" ]; then
    gemmaq convert "$work/trained" --to gguf --to mlx --method lattice -o "$work/runtimes" -q
fi
gemmaq verify "$work/runtimes" --against "$work/trained"

# 4. What each of them loses.
gemmaq evaluate "$work/nearest" "$work/gptq" "$work/runtimes/gguf" --reference "$source" --text "$held" \
    --report "$work/quality.html" --force
