"""What processes send to each other, and their shares of work; real ones are tested with the command line."""

from __future__ import annotations

import pytest

from fake_peers import together
from gemmaq.errors import UsageError
from gemmaq.inference.peers import ALONE, Peers, expected, here, is_stuck, joined

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(("count", "unit", "wanted"), [
    (10, 1, [4, 3, 3]), (10, 4, [4, 4, 2]), (3, 4, [3, 0, 0]), (0, 2, [0, 0, 0]), (16, 4, [8, 4, 4]),
])  # fmt: skip
def test_shares_are_runs_of_whole_units(count: int, unit: int, wanted: list[int]) -> None:
    parts = [Peers(rank, 3).share(count, unit) for rank in range(3)]
    assert [part.stop - part.start for part in parts] == wanted
    assert [at for part in parts for at in range(part.start, part.stop)] == list(range(count))


def test_one_process_is_the_main_and_the_last_one() -> None:
    assert ALONE.main and ALONE.last == 0 and ALONE.share(7, 2) == slice(0, 7)
    assert ALONE.gather("a") == ["a"] and ALONE.gather_all("a") == ["a"] and ALONE.broadcast("a") == "a"
    with joined() as peers:
        assert peers is ALONE
    assert not is_stuck()


def test_values_go_from_all_to_one_and_back() -> None:
    def run(peers: Peers) -> tuple[list[int], list[int], str]:
        return peers.gather(peers.rank), peers.gather_all(10 * peers.rank), peers.broadcast(f"of {peers.rank}")

    main, *others = together(3, run)
    assert main == ([0, 1, 2], [0, 10, 20], "of 0")
    assert others == [([], [0, 10, 20], "of 0")] * 2


def test_numbers_of_processes_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert (expected(), here()) == (1, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (expected(), here()) == (4, 2)
    monkeypatch.setenv("WORLD_SIZE", "many")
    assert expected() == 1


def test_processes_that_cannot_be_found_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="WORLD_SIZE is 2, and the other processes cannot be found"), joined():
        pass
