"""Names of EmbeddingGemma: the dense heads have some, too."""

from __future__ import annotations

from gemmaq.models.embeddinggemma import names
from gemmaq.models.roles import Role


def test_dense_heads_have_names_and_a_role() -> None:
    for head in names.HEADS:
        assert names.from_gguf(names.to_gguf(head)) == head
        assert names.place(head).role is Role.DENSE and names.place(head).kind in names.KINDS
    assert names.from_gguf("dense_4.weight") is None
    assert names.to_gguf(names.EMBEDDING) == "token_embd.weight"
