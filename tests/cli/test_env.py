"""What a bug report needs to know, and nothing private."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import gemmaq
from gemmaq.cli import env, system
from gemmaq.vram import detect
from inprocess import run


@pytest.fixture(autouse=True)
def _no_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "cards", list)


def test_it_names_versions_machine_and_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GEMMAQ_CACHE", str(tmp_path))
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate/a.npy").write_bytes(bytes(3000))
    found = json.loads(run("env", "--json").stdout)
    assert found["schema"] == "gemmaq.env/1" and found["gemmaq"]["version"] == gemmaq.__version__
    assert found["packages"]["numpy"] and found["memory"]["total"] > 0 and found["cpu"]["usable_cores"] >= 1
    assert found["caches"]["gemmaq"] == {"folder": str(tmp_path), "bytes": 3000, "complete": True}
    text = run("env").stdout
    for word in ("Python", "cpu", "memory", "numpy", "kernels", "3.00 kB", "GEMMAQ_CACHE="):
        assert word in text, word


def test_quiet_is_the_version() -> None:
    assert run("env", "-q").stdout == f"{gemmaq.__version__}\n"


def test_no_token_and_no_home_folder_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "a-name"))
    monkeypatch.setenv("GEMMAQ_CACHE", str(tmp_path / "a-name/cache"))
    for name in ("HF_TOKEN", "GEMMAQ_TOKEN", "GEMMAQ_HUB_TOKEN"):
        monkeypatch.setenv(name, "hf_secret")
    for form in ((), ("--json",)):
        shown = run("env", *form).stdout
        assert "hf_secret" not in shown and "a-name" not in shown and "~/cache" in shown


def test_a_large_cache_is_not_counted_to_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GEMMAQ_CACHE", str(tmp_path))
    monkeypatch.setattr(env, "_MOST_FILES", 2)
    (tmp_path / "evaluate").mkdir()
    for name in "abc":
        (tmp_path / "evaluate" / name).write_bytes(bytes(10))
    assert env.gathered()["caches"]["gemmaq"] == {
        "folder": str(tmp_path),
        "bytes": 20,
        "complete": False,
    }
    assert "more than 20 B" in run("env").stdout


def test_a_system_without_proc_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "read", lambda path: "")
    found = env.gathered()
    assert found["cpu"]["features"] == [] and found["memory"]["total"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf(
        "SC_PAGE_SIZE"
    )
    assert "features   not known" in run("env").stdout
