"""Containers that plans are made for, as data: what users type, what cards and commands say of each.

A container is an entry here and a module of the same name in `containers/` that writes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from gemmaq.errors import UsageError


@dataclass(frozen=True, slots=True)
class Command:
    """A command line that runs an artifact.

    Attributes:
        here: in the artifact's folder; `{weights}` is the first weight file, `{stem}` its name without shard number
            and ending, `{projector}` the option that gives the vision projector, if there is one.
        hub: from the Hub; `{repo}` is the repository, `{type}` the type of the layers' matrices.
        vision: only for models with a vision side.
        file: only where the artifact has this file; from the Hub in any case.
    """

    here: str
    hub: str
    vision: bool = False
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Container:
    """Everything the other rooms have to know of a container.

    Attributes:
        name: the name users type, and that of its module in `containers/`; also the folder of its files where a run
            writes several containers.
        title: heading in the model card.
        runtimes: programs that load it, for the model card.
        library: the Hub's library_name.
        engine: engine of `vram` whose memory the model card shows.
        formats: formats that its artifacts have as checkpoints (`Checkpoint.format`), that of quantized ones first.
        commands: command lines that run it, for the model card.
        ollama: whether Ollama loads it, so that it gets a Modelfile and Ollama's parameters.
        header_format: `format` in the metadata of its safetensors headers, None for other files.
    """

    name: str
    title: str
    runtimes: str
    library: str
    engine: str
    formats: tuple[str, ...]
    commands: tuple[Command, ...]
    ollama: bool = False
    header_format: str | None = None


CONTAINERS: dict[str, Container] = {
    container.name: container
    for container in (
        Container(
            "gguf",
            title="GGUF",
            runtimes="llama.cpp, Ollama and LM Studio",
            library="gguf",
            engine="llama.cpp",
            formats=("gguf",),
            commands=(
                Command("llama-server -m {weights}{projector}", "llama-server -hf {repo}:{type}"),
                Command("ollama create {stem} -f Modelfile", "ollama run hf.co/{repo}:{type}", file="Modelfile"),
            ),
            ollama=True,
        ),
        Container(
            "mlx",
            title="MLX",
            runtimes="MLX",
            library="mlx",
            engine="mlx",
            formats=("mlx",),
            header_format="mlx",
            commands=(
                Command("mlx_lm.chat --model .", "mlx_lm.chat --model {repo}"),
                Command("mlx_vlm.chat --model .", "mlx_vlm.chat --model {repo}", vision=True),
            ),
        ),
        Container(
            "safetensors",
            title="safetensors",
            runtimes="transformers and vLLM",
            library="transformers",
            engine="vllm",
            formats=("compressed-tensors", "safetensors"),
            header_format="pt",
            commands=(Command("vllm serve .", "vllm serve {repo}"),),
        ),
    )
}
"""Container name -> entry, in the order that help and messages list them."""


def check(name: str) -> str:
    """The container's name in lower case.

    Raises:
        UsageError: there is no such container.
    """
    if name.lower() not in CONTAINERS:
        raise UsageError(f"unknown container {name!r}", f"known containers: {', '.join(CONTAINERS)}")
    return name.lower()


def of_checkpoint_format(format: str) -> Container:
    """The container whose artifacts have this format as checkpoints."""
    return next(container for container in CONTAINERS.values() if format in container.formats)
