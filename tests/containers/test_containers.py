"""Every container of the registry has its module."""

from __future__ import annotations

from gemmaq.containers import writer
from gemmaq.planning.containers import CONTAINERS, of_checkpoint_format


def test_every_entry_has_its_module() -> None:
    for name in CONTAINERS:
        module = writer(name)
        assert module.FORMAT.name == name
        assert all(callable(part) for part in (module.lay_out, module.pack, module.arrays))
    formats = [format for container in CONTAINERS.values() for format in container.formats]
    assert len(set(formats)) == len(formats)
    assert of_checkpoint_format("compressed-tensors").name == "safetensors"
