"""Bytes that llama.cpp puts on every device, against gemmaq's: partial offload, unequal cards, experts in main memory.

    GGML_VK_VISIBLE_DEVICES=0,0 python tests/benchmarks/placement.py FOLDER

FOLDER holds the libraries of llama.cpp v0.5.0 with its Vulkan backend: bins/linux-x64-vulkan of the npm package
@node-llama-cpp/linux-x64-vulkan 3.22.1. Any Vulkan device will do, one of software too (Debian: mesa-vulkan-drivers),
which stands for two: nothing is allocated or computed. It is made to say that it supports every operation, since one of
software refuses tensors of more than 128 MiB. What is measured is how llama.cpp divides a model, not a driver's own
needs, and no CUDA device.
"""

from __future__ import annotations

import ctypes
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from allocator import GGML_TYPES, _ContextParams, file_of
from gemmaq.models.families import require_size
from gemmaq.vram import Load
from gemmaq.vram.cards import Card
from gemmaq.vram.placement import place
from placements import LLAMA, build

MIB = 1 << 20
SETTINGS = (
    ("4b", 35, (35,), 0, 8192, "f16"),
    ("4b", 10, (10,), 0, 8192, "f16"),
    ("4b", 17, (17,), 0, 32768, "q8_0"),
    ("4b", 35, (24, 11), 0, 8192, "f16"),
    ("4b", 18, (11, 7), 0, 8192, "f16"),
    ("27b", 62, (62,), 0, 8192, "f16"),
    ("27b", 31, (31,), 0, 32768, "q8_0"),
    ("27b", 63, (42, 21), 0, 8192, "f16"),
    ("27b", 32, (21, 11), 0, 8192, "f16"),
    ("E2B", 10, (10,), 0, 8192, "f16"),
    ("E2B", 18, (18,), 0, 32768, "q8_0"),
    ("E2B", 36, (24, 12), 0, 8192, "f16"),
    ("E2B", 19, (12, 7), 0, 8192, "f16"),
    ("gemma-4-12b", 10, (10,), 0, 8192, "f16"),
    ("gemma-4-12b", 24, (24,), 0, 32768, "q8_0"),
    ("gemma-4-12b", 49, (33, 16), 0, 8192, "f16"),
    ("gemma-4-12b", 25, (16, 9), 0, 8192, "f16"),
    ("26b-a4b", 31, (31,), 0, 8192, "f16"),
    ("26b-a4b", 31, (31,), 5, 8192, "f16"),
    ("26b-a4b", 31, (31,), 20, 8192, "f16"),
    ("26b-a4b", 31, (31,), 30, 131072, "f16"),
    ("26b-a4b", 31, (31,), 12, 131072, "q8_0"),
    ("26b-a4b", 24, (24,), 30, 32768, "f16"),
    ("26b-a4b", 31, (31,), 3, 8192, "f16"),
    ("26b-a4b", 31, (20, 11), 30, 8192, "f16"),
    ("26b-a4b", 31, (20, 11), 10, 8192, "f16"),
    ("26b-a4b", 31, (20, 11), 30, 131072, "f16"),
    ("27b", 31, (31,), 0, 131072, "f16"),
    ("4b", 17, (17,), 0, 131072, "q8_0"),
    ("31b", 30, (30,), 0, 131072, "f16"),
    ("E4B", 20, (20,), 0, 131072, "f16"),
    ("E2B", 10, (10,), 0, 131072, "q8_0"),
)
"""Size, -ngl, -ts, --n-cpu-moe, context, type of K and V."""


class _ModelParams(ctypes.Structure):
    """llama_model_params of llama.cpp v0.5.0, as far as it is set here."""

    _fields_ = (
        ("devices", ctypes.c_void_p),
        ("overrides", ctypes.c_void_p),
        ("n_gpu_layers", ctypes.c_int32),
        ("split_mode", ctypes.c_int32),
        ("load_mode", ctypes.c_int32),
        ("lazy_mode", ctypes.c_int32),
        ("main_gpu", ctypes.c_int32),
        ("tensor_split", ctypes.c_void_p),
        ("pointers", ctypes.c_byte * 28),
        ("no_alloc", ctypes.c_bool),
        ("rest", ctypes.c_byte * 179),
    )


class _Override(ctypes.Structure):
    """llama_model_tensor_buft_override."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer", ctypes.c_void_p))


@ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_void_p)
def _supports(device: int, operation: int) -> bool:
    return True


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def _silent(level: int, text: bytes, data: int) -> None:
    return None


class LlamaCpp:
    """llama.cpp with Vulkan devices that support everything."""

    def __init__(self, folder: Path) -> None:
        self.base = ctypes.CDLL(str(folder / "libggml-base.so"), ctypes.RTLD_GLOBAL)
        backends = ctypes.CDLL(str(next(folder.glob("libggml.*v*.so"))), ctypes.RTLD_GLOBAL)
        backends.ggml_backend_load_all_from_path.argtypes = [ctypes.c_char_p]
        backends.ggml_backend_load_all_from_path(str(folder).encode() + b"/")
        self.llama = ctypes.CDLL(str(next(folder.glob("libllama.*v*.so"))), ctypes.RTLD_GLOBAL)
        self.llama.llama_log_set(_silent, None)
        for library, name, result, arguments in (
            (self.llama, "llama_model_default_params", _ModelParams, []),
            (self.llama, "llama_context_default_params", _ContextParams, []),
            (self.llama, "llama_model_load_from_file", ctypes.c_void_p, [ctypes.c_char_p, _ModelParams]),
            (self.llama, "llama_init_from_model", ctypes.c_void_p, [ctypes.c_void_p, _ContextParams]),
            (self.llama, "llama_free", None, [ctypes.c_void_p]),
            (self.llama, "llama_model_free", None, [ctypes.c_void_p]),
            (backends, "ggml_backend_dev_count", ctypes.c_size_t, []),
            (backends, "ggml_backend_dev_get", ctypes.c_void_p, [ctypes.c_size_t]),
            (self.base, "ggml_backend_dev_name", ctypes.c_char_p, [ctypes.c_void_p]),
            (self.base, "ggml_backend_buft_name", ctypes.c_char_p, [ctypes.c_void_p]),
            (self.base, "ggml_backend_cpu_buffer_type", ctypes.c_void_p, []),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        every = [backends.ggml_backend_dev_get(number) for number in range(backends.ggml_backend_dev_count())]
        self.devices = [device for device in every if b"Vulkan" in self.base.ggml_backend_dev_name(device)]
        for device in self.devices:
            table = (ctypes.c_void_p * 16).from_address(device)
            table[9] = ctypes.cast(_supports, ctypes.c_void_p).value  # ggml_backend_device_i.supports_op

    def bytes(self, path: Path, setting: tuple[str, int, tuple[int, ...], int, int, str]) -> dict[str, list[int]]:
        """Bytes of model, context and compute buffer by type of buffer."""
        _, ngl, split, moe, context, kind = setting
        params = self.llama.llama_model_default_params()
        devices = (ctypes.c_void_p * (len(split) + 1))(*self.devices[: len(split)])
        parts, overrides = (ctypes.c_float * 128)(*split), (_Override * (moe + 1))()
        for number in range(moe):
            overrides[number].pattern = rf"blk\.{number}\.ffn_(up|down|gate|gate_up)_(ch|)exps".encode()
            overrides[number].buffer = self.base.ggml_backend_cpu_buffer_type()
        params.devices, params.tensor_split = ctypes.addressof(devices), ctypes.addressof(parts)
        params.overrides = ctypes.addressof(overrides) if moe else None
        params.n_gpu_layers, params.no_alloc, params.load_mode = ngl, True, 0
        model = self.llama.llama_model_load_from_file(str(path).encode(), params)
        wanted = self.llama.llama_context_default_params()
        wanted.n_ctx, wanted.n_ubatch, wanted.n_batch, wanted.n_seq_max, wanted.n_outputs_max = context, 512, 2048, 1, 1
        wanted.flash_attn_type, wanted.swa_full, wanted.kv_unified = 1, False, True
        wanted.type_k = wanted.type_v = GGML_TYPES[kind]
        made = self.llama.llama_init_from_model(model, wanted)
        found = self._breakdown(made)
        self.llama.llama_free(made)
        self.llama.llama_model_free(model)
        return found

    def _breakdown(self, context: int) -> dict[str, list[int]]:
        """A std::map of libstdc++, from type of buffer to three sizes."""
        function = self.llama._Z26llama_get_memory_breakdownPK13llama_context
        function.restype, function.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p]
        result = (ctypes.c_size_t * 8)()
        function(ctypes.addressof(result), context)
        found: dict[str, list[int]] = {}

        def walk(node: int) -> None:
            if not node:
                return
            fields = (ctypes.c_size_t * 8).from_address(node)
            walk(fields[2])
            found[self.base.ggml_backend_buft_name(fields[4]).decode()] = list(fields[5:8])
            walk(fields[3])

        walk(result[2])
        return found


def main() -> None:
    llama = LlamaCpp(Path(sys.argv[1]))
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for setting in SETTINGS:
            name, ngl, split, moe, context, kind = setting
            path = Path(folder) / f"{name}.gguf"
            if not path.exists():
                file_of(require_size(name), path)
            theirs = llama.bytes(path, setting)
            devices = [theirs[f"Vulkan{number}"] for number in range(len(split))]
            load = Load(context, (kind, kind))
            overhead = LLAMA.estimate(build(name).model, load).overhead
            sizes = [int(sum(parts) * 1.013) + overhead for parts in devices]
            cards = [Card("a card", size, size) for size in sizes]
            ours = place(LLAMA, build(name), load, cards, offload=True)
            same = (ours.ngl, ours.split, ours.cpu_moe) == (ngl, split, moe)
            print(
                f"{name} -ngl {ngl} -ts {split} --n-cpu-moe {moe} -c {context} {kind}", "" if same else "OTHER CHOICE"
            )
            for device, parts in zip(ours.devices, devices, strict=True) if same else ():
                total = 100 * ((device.total - device.overhead) / sum(parts) - 1)
                worst = max(worst, abs(total))
                off = device.weights - parts[0], device.kv - parts[1], device.compute - parts[2]
                print(f"    {sum(parts) / MIB:9,.1f} MiB, {total:+.2f} %; bytes off: weights, cache, scratch {off}")
    print(f"largest difference: {worst:.2f} %")


if __name__ == "__main__":
    main()
