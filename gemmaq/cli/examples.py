"""Examples for the help of each command, as people would type them, and the options that most of them need.

A test parses every line.
"""

from __future__ import annotations

from gemmaq.models.samples import EXAMPLE as _MODEL
from gemmaq.models.samples import EXAMPLE_REPOSITORY as _REPO

START = ("estimate-vram", "convert", "install")
"""The commands that most people need, in the order of their use."""

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "": (
        ("what fits a card", 'gemmaq estimate-vram --gpu "RTX 4060"'),
        ("download a model and quantize it", f"gemmaq convert {_REPO} -o gemma"),
        ("put it into Ollama", "gemmaq install gemma --runtime ollama"),
    ),
    "pull": (
        ("what would be downloaded", f"gemmaq pull {_REPO} --dry-run"),
        ("into a folder", f"gemmaq pull {_REPO} -o {_MODEL}"),
    ),
    "inspect": (
        ("a repository, by its headers alone", f"gemmaq inspect {_REPO}"),
        ("every tensor of a file", f"gemmaq inspect {_MODEL}-Q4_0.gguf --tensors"),
    ),
    "convert": (
        ("for llama.cpp, Ollama and LM Studio", f"gemmaq convert {_REPO} -o gemma"),
        ("for MLX and vLLM too, with the same codes", f"gemmaq convert {_MODEL} --to gguf,mlx,safetensors -o all"),
        ("several types at once", f"gemmaq convert {_MODEL} --quant q4_0,q5_k_m,q8_0 -o types"),
        ("the best file for a card", f'gemmaq convert {_MODEL} --fit "RTX 4060" --context 16k'),
        ("calibrated, for a model without QAT", f"gemmaq convert {_MODEL} --method gptq -o better"),
        ("a LoRA adapter, merged", "gemmaq convert my-org/my-lora --quant q4_0"),
        ("what would be written, to the byte", f"gemmaq convert {_MODEL} --dry-run"),
    ),
    "imatrix": (
        ("of the texts that come with gemmaq", f"gemmaq imatrix {_MODEL} -o imatrix.gguf"),
        ("of your own text", f"gemmaq imatrix {_MODEL} --text notes.txt -o imatrix.gguf"),
        ("on two machines, of which this is the first", f"gemmaq imatrix {_MODEL} --part 1/2 -o first.gguf"),
        ("", "gemmaq imatrix --merge first.gguf --merge second.gguf -o imatrix.gguf"),
        ("what a file says", "gemmaq imatrix --show-statistics imatrix.gguf"),
    ),
    "sensitivity": (
        ("how long it takes", f"gemmaq sensitivity {_MODEL} -o sensitivities.json --dry-run"),
        ("measure, and use it", f"gemmaq sensitivity {_MODEL} -o sensitivities.json"),
        ("", f"gemmaq convert {_MODEL} --target-bpw 4.6 --sensitivity sensitivities.json"),
    ),
    "verify": (
        ("checksums, headers, tokenizer", "gemmaq verify gemma"),
        ("every byte, against the source", f"gemmaq verify gemma --against {_REPO}"),
        ("in a runtime that is installed", "gemmaq verify gemma --run"),
    ),
    "estimate-vram": (
        ("what to run on a card, the best first", 'gemmaq estimate-vram --gpu "RTX 4060" --context 16k'),
        ("whether a model fits", "gemmaq estimate-vram 27b --quant q4_0 --context 32k --gpu 24GB"),
        ("the cards it knows", "gemmaq estimate-vram --gpu list"),
        ("with a part in main memory", "gemmaq estimate-vram 27b --gpu 12GB --offload"),
        ("a file, in Ollama", f"gemmaq estimate-vram {_MODEL}-Q4_0.gguf --engine ollama"),
    ),
    "evaluate": (
        ("against the model before quantization", f"gemmaq evaluate gemma --reference {_REPO}"),
        ("several, with a page of charts", f"gemmaq evaluate q4 q8 --reference {_MODEL} --report quality.html"),
        ("fail a pipeline", f"gemmaq evaluate gemma --reference {_MODEL} --max-kl 0.1"),
        ("what a KV cache costs", "gemmaq evaluate gemma --kv-type q8_0 --kv-type q4_0"),
    ),
    "qat": (
        ("what would be trained, and the memory it takes", f"gemmaq qat {_MODEL} --text notes.txt --dry-run"),
        ("train, then convert", f"gemmaq qat {_MODEL} --text notes.txt --steps 200 -o trained"),
        ("", "gemmaq convert trained --to gguf"),
        ("go on after an interruption", f"gemmaq qat {_MODEL} --text notes.txt -o trained --resume"),
    ),
    "push": (
        ("what would be uploaded", f"gemmaq push gemma my-org/{_MODEL}-GGUF --dry-run"),
        ("as a private repository", f"gemmaq push gemma my-org/{_MODEL}-GGUF --private"),
    ),
    "install": (
        ("into Ollama, under a name", "gemmaq install gemma --runtime ollama --name gemma-qat"),
        ("into LM Studio", "gemmaq install gemma --runtime lmstudio"),
    ),
    "env": (("for a bug report", "gemmaq env"),),
}
"""Command -> what an example is for, empty where it goes on, and its line; "" is gemmaq itself."""

FIRST: dict[str, tuple[str, ...]] = {
    "convert": ("--to", "--quant", "--method", "--fit", "--output", "--dry-run", "--force"),
    "estimate-vram": ("--quant", "--context", "--gpu", "--engine", "--kv-type", "--offload"),
    "evaluate": ("--reference", "--text", "--kind", "--report", "--tokens"),
    "qat": ("--text", "--steps", "--minutes", "--output", "--dry-run", "--resume"),
}
"""Command of many options -> those that most people need, which come first in its help."""
