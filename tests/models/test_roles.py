"""Roles say what rooms above want to know, and no tensor has two of them."""

from __future__ import annotations

import pytest

from gemmaq.models.roles import NOWHERE, Role


@pytest.mark.parametrize("role", Role)
def test_a_role_is_quantized_as_a_table_or_as_a_matrix_or_not_at_all(role: Role) -> None:
    assert not (role.is_table and role.is_layer_matrix)
    assert role.is_quantizable == (role.is_table or role.is_layer_matrix or role in (Role.DENSE, Role.PROJECTION))


def test_vectors_and_the_vision_side_are_never_quantized() -> None:
    for role in (Role.NORM, Role.SCALAR, Role.ROUTER, Role.TOWER, NOWHERE.role):
        assert not role.is_quantizable
