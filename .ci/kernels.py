"""Compile loops into one library, those that gemmaq/jit/kernels.txt lists: kernels.py LEVEL LIBRARY [LIST].

Each core has a part of the list: kernels.py LEVEL OBJECT LIST PART/PARTS makes the object file of one.

numba compiles them as on a user's machine, but for every processor of a level, as x86-64-v3. Of its LLVM modules
the functions that Python calls are kept under names of our own; all else becomes internal, and the C compiler links it
with the few functions of numba's runtime that it needs.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RUNTIME = r"""
#include <stdint.h>
#include <stdlib.h>

/* What numba's code keeps of an array that a loop makes for itself; it reads these fields, in this order. */
typedef struct { size_t references; void *destroy, *destroyed_with, *data; size_t size; void *allocator; } Memory;

__attribute__((visibility("hidden"))) void *NRT_MemInfo_alloc_aligned(size_t size, uint32_t align) {
    if (size > SIZE_MAX - sizeof(Memory) - align) return NULL;
    Memory *memory = malloc(sizeof(Memory) + size + align);
    if (!memory) return NULL;
    uintptr_t data = (uintptr_t)(memory + 1);
    if (align) data = (data + align - 1) / align * align;
    *memory = (Memory){1, NULL, NULL, (void *)data, size, NULL};
    return memory;
}

__attribute__((visibility("hidden"))) void *NRT_MemInfo_alloc_safe_aligned(size_t size, uint32_t align) {
    return NRT_MemInfo_alloc_aligned(size, align);
}

__attribute__((visibility("hidden"))) void NRT_MemInfo_call_dtor(void *memory) { free(memory); }
"""


def main(level: str, made: str, functions: str | None = None, part: str | None = None) -> None:
    """Write the library of these functions, those of gemmaq/jit/kernels.txt if no other list is given, or a part."""
    sys.path.insert(0, str(ROOT))
    with TemporaryDirectory() as folder:
        if part is None:
            _link(level, Path(made), functions or str(ROOT / "gemmaq/jit/kernels.txt"), Path(folder))
        else:
            # Read by numba when it is imported. Its cache on disk could hold code for this machine alone.
            os.environ |= {"NUMBA_CPU_NAME": level, "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": folder}
            Path(made).write_bytes(_compiled(level, functions, *map(int, part.split("/"))))


def system(libraries: Sequence[bytes]) -> str:
    """The systems that libraries run on, as in a wheel's tag: those whose glibc has the newest function they call.

    Source of the tag: PEP 600. A library for another libc runs on the machine that it was made on.
    """
    minors = [int(minor) for library in libraries for minor in re.findall(rb"GLIBC_2\.(\d+)", library)]
    minors += [36 for library in libraries if b"GLIBC_ABI_DT_RELR" in library]  # packed relocations
    return f"manylinux_2_{max(17, *minors)}_x86_64" if minors else "linux_x86_64"


def _link(level: str, library: Path, functions: str, folder: Path) -> None:
    """Let a process for each core compile its part, and link them."""
    parts = len(os.sched_getaffinity(0))
    objects = [folder / f"{part}.o" for part in range(parts)]
    command = [sys.executable, __file__, level]
    running = [subprocess.Popen([*command, path, functions, f"{part}/{parts}"]) for part, path in enumerate(objects)]
    if any([process.wait() for process in running]):
        sys.exit("the loops cannot be compiled")
    runtime = folder / "runtime.c"
    runtime.write_text(RUNTIME)
    flags = ["-shared", "-fPIC", "-O2", "-s", "-Wl,--no-undefined", "-Wl,-z,noexecstack"]
    subprocess.run(["cc", *flags, "-o", library, *objects, runtime, "-lm"], check=True)


def _compiled(level: str, functions: str | None, part: int, parts: int) -> bytes:
    """Machine code of every so many-th function of a list, as an object file."""
    from llvmlite import binding

    from gemmaq.jit import native

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    target = binding.Target.from_triple(binding.get_process_triple())
    machine = target.create_target_machine(cpu=level, opt=3, reloc="pic", codemodel="small")
    whole, names = binding.parse_assembly(""), set()
    listed = native.listed(Path(functions) if functions else None).items()
    for name, arguments, result in [(name, *kind) for name, kinds in listed for kind in kinds.items()][part::parts]:
        symbol = native.symbol(name, arguments)
        whole.link_in(_module(name, arguments, result, symbol))
        names.add(symbol)
    for function in whole.functions:
        if not function.is_declaration and function.name not in names:
            function.linkage = "internal"
    for variable in whole.global_variables:
        if not variable.is_declaration:
            variable.linkage = "internal"
    passes = binding.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(whole, binding.create_pass_builder(machine, binding.create_pipeline_tuning_options()))
    whole.verify()
    return machine.emit_object(whole)


def _module(name: str, arguments: str, result: str, symbol: str) -> Any:
    """LLVM's module of a function, with all that it calls."""
    from llvmlite import binding

    module, _, attribute = name.rpartition(".")
    compiler = getattr(importlib.import_module(module), attribute).made
    signature = tuple(_type(kind) for kind in arguments.split())
    compiler.compile(signature)
    compiled = compiler.overloads[signature]
    if _type(result) != compiled.signature.return_type:
        raise TypeError(f"{name} {arguments} returns {compiled.signature.return_type}, not {result}")
    part = binding.parse_assembly(str(compiled.library._final_module))
    for function in part.functions:
        if function.name == compiled.fndesc.llvm_func_name:
            function.name = symbol
        elif not function.is_declaration:
            function.linkage = "linkonce_odr"  # the same one may be in several modules
    return part


def _type(kind: str) -> Any:
    """The type in numba, of its name in kernels.txt."""
    import numpy as np
    from numba import from_dtype, types

    from gemmaq.jit import native

    if kind.endswith(")"):
        module, _, named = kind[: kind.index("(")].rpartition(".")
        parts = [_type(part) for part in native.members(kind)]
        return types.BaseTuple.from_types(parts, getattr(importlib.import_module(module), named) if named else None)
    if "[" in kind:
        number, _, rest = kind.partition("[")
        return types.Array(_type(number), int(rest.partition("]")[0]), "A" if kind.endswith("~") else "C")
    named = {"none": types.none, "bool": types.boolean}
    return named[kind] if kind in named else from_dtype(np.dtype(kind))


if __name__ == "__main__":
    main(*sys.argv[1:])
