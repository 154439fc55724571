"""Containers that plans are made for, as data: what users type, what cards and commands say of each.

A container is an entry here and a module of the same name in `containers/` that writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gemmaq.errors import unknown


@dataclass(frozen=True, slots=True)
class Command:
    """A command line that runs an artifact.

    Attributes:
        here: in the artifact's folder; `{weights}` is the first weight file, `{stem}` its name without shard number
            and ending, `{artifact}` the folder or the file of one of several models, `{projector}` the option for the
            mmproj file and `{drafter}` those for the drafter, if there is one.
        hub: from the Hub; `{repo}` is the repository, `{type}` the type of the layers' matrices, `{tag}` the type or
            the file's name where a drafter has a type, too, and `{drafter}` the option for the drafter.
        vision: only for models with towers.
        embeds: only for models that turn texts into vectors; all others are for models that continue them.
        drafts: only for drafters, which run beside a model; all others are for models that stand alone.
        file: only where the artifact has this file; from the Hub in any case.
    """

    here: str
    hub: str
    vision: bool = False
    file: str | None = None
    embeds: bool = False
    drafts: bool = False


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
        others: formats of other programs' quantized folders that its runtimes load as they are.
        several: whether models in several types lie in one folder; otherwise each has a folder of its own.
        ollama: whether Ollama loads it, so that it gets a Modelfile and Ollama's parameters.
        header_format: `format` in the metadata of its safetensors headers, None for other files.
        remark: what users should know of an artifact, None for nothing.
    """

    name: str
    title: str
    runtimes: str
    library: str
    engine: str
    formats: tuple[str, ...]
    commands: tuple[Command, ...]
    others: tuple[str, ...] = ()
    several: bool = False
    ollama: bool = False
    header_format: str | None = None
    remark: str | None = None


_CREATE = "ollama create {stem} -f Modelfile"
_DRAFT = Command(
    "llama-server -m MODEL.gguf --spec-type draft-mtp --model-draft {weights}",
    "llama-server -hf MODEL --spec-type draft-mtp --hf-repo-draft {repo}",
    drafts=True,
)
_EMBED_IN_MLX = (
    "python -c \"import mlx_embeddings as m; print(m.generate(*m.load('MODEL'), texts=['a text']).text_embeds)\""
)

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
                Command("llama-server -m {weights}{projector}{drafter}", "llama-server -hf {repo}:{type}{drafter}"),
                Command(_CREATE, "ollama run hf.co/{repo}:{tag}", file="Modelfile"),
                Command("gemmaq install {artifact} --runtime lmstudio", "lms get https://huggingface.co/{repo}@{type}"),
                Command(
                    "llama-server -m {weights} --embeddings", "llama-server -hf {repo}:{type} --embeddings", embeds=True
                ),
                Command(_CREATE, "ollama pull hf.co/{repo}:{type}", file="Modelfile", embeds=True),
                _DRAFT,
            ),
            several=True,
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
                Command(_EMBED_IN_MLX.replace("MODEL", "."), _EMBED_IN_MLX.replace("MODEL", "{repo}"), embeds=True),
            ),
        ),
        Container(
            "safetensors",
            title="safetensors",
            runtimes="transformers and vLLM",
            library="transformers",
            engine="vllm",
            formats=("compressed-tensors", "safetensors"),
            others=("gptq", "awq", "bitsandbytes", "fp8"),
            header_format="pt",
            commands=(
                Command("vllm serve .", "vllm serve {repo}"),
                Command("transformers serve .", "transformers serve {repo}"),
                Command("vllm serve . --runner pooling", "vllm serve {repo} --runner pooling", embeds=True),
            ),
        ),
    )
}
"""Container name -> entry, in the order that help and messages list them."""


_MEANT = {
    **dict.fromkeys(("llama.cpp", "llamacpp", "llama", "ollama", "lmstudio", "lm-studio", "ggml"), "gguf"),
    **dict.fromkeys(("mlx-lm", "mlx_lm", "mlx-vlm", "apple"), "mlx"),
    **dict.fromkeys(("transformers", "vllm", "hf", "huggingface", "compressed-tensors"), "safetensors"),
}
"""What people write, and the container that it means: that of a runtime, for the most part."""


def check(name: str) -> str:
    """The container's name in lower case.

    Raises:
        UsageError: there is no such container.
    """
    if name.lower() not in CONTAINERS:
        raise unknown("container", name, CONTAINERS, meant=_MEANT)
    return name.lower()


def of_checkpoint_format(format: str) -> Container:
    """The container whose artifacts have this format as checkpoints."""
    return next(c for c in CONTAINERS.values() if format in (*c.formats, *c.others))


def for_drafters(container: Container) -> Container:
    """The container as it is for a drafter, which LM Studio does not load."""
    return replace(container, runtimes="llama.cpp and Ollama")


def with_experts(container: Container) -> Container:
    """The container as it is for a model with quantized experts, which not every runtime loads."""
    if container.name != "safetensors":
        return container
    remark = "the experts are quantized one by one: vLLM reads them on a GPU, transformers does not read them"
    commands = tuple(command for command in container.commands if command.here.startswith("vllm"))
    return replace(container, runtimes="vLLM on a GPU", library="vllm", commands=commands, remark=remark)
