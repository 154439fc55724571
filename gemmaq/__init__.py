"""gemmaq quantizes Gemma checkpoints: the same int4 codes for every local runtime.

A source becomes an artifact in one direction, with no way back:

    source -> checkpoint -> plan -> calibrate -> lay out -> write -> artifact

A run may make several types (a ladder): each has a request and plans of its own, and all share the reading of the
source and one calibration.

`sources` turns a repository, a folder, a .gguf file or the sample into a `checkpoint`: tensors that are read lazily,
under canonical names and with roles. `planning` decides the name, the type, the method and the bytes of every tensor.
Sizes, --dry-run, memory estimates and real runs are all computed from the plan. `calibration` runs
the model and completes the plan with importances and solved codes. `containers` lay the tensors out in files, `convert`
writes them slab by slab, and `artifact` adds checksums, provenance and the model card.

A checkpoint is a text model with what belongs to it. Towers, projectors included, turn images and sound into
embeddings: their type is chosen apart from that of the text model, and where a container stores their numbers in
another order or shape, an `Arrangement` (`models`) says how. A drafter proposes tokens to the text model, its target:
it is a model of a family of its own, whose checkpoint and plan hang on those of the target.

Three questions about a tensor never mix. Which numbers can be represented is its type (`encodings`), which code each
weight gets is its method (`methods`, and `calibration` for GPTQ), how the bytes lie in a file is its container
(`containers`). So one set of codes serves every runtime whose container holds the type.

Rooms stand on floors, and imports only go down: a room imports rooms below it and its own files. Rooms of one floor
do not import each other.

    10 cli                                        commands, output, exit codes: the only room that prints
    9  budget                                     types chosen for a size or a card, written and measured
    8  qat, evaluate, verify                      use cases of their own
    7  convert, runtimes                          run.py is the pipeline; hand-off to Ollama, LM Studio
    6  containers, calibration, artifact, vram    file formats; GPTQ, imatrix; a finished folder; GPU memory
    5  planning, inference, sources               type and method of every tensor; torch and texts; opening a source
    4  checkpoint, methods                        tensors of any layout; rows of weights to codes, without torch
    3  models                                     all that is known of each model family, and nowhere else
    2  encodings, files, charts, hub              types and their kernels; bytes; drawings; huggingface_hub
    1  errors, jit, progress                      exceptions with exit codes; compiled loops; progress callbacks

Where to add something: a type is a file in `encodings` and an entry in its registry; likewise a container in
`containers`, a method in `methods` or `calibration`, an engine in `vram/engines`, a runtime in `runtimes`, a model
family in `models`. No other room names a tensor, an architecture or a Hugging Face class: it asks the family, or a
tensor for its role. `.github/CONTRIBUTING.md` lists the files, and tests/test_architecture.py checks the floors.
"""

__version__ = "0.1.0"
