"""A fake Hub for each test, and this process settled as if it had been started for that Hub."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from fake_hub import FakeHub
from gemmaq.hub import retry
from home import Here, Settle


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    with FakeHub(tmp_path / "hub") as hub:
        yield hub
        assert not hub.unknown


@pytest.fixture
def settle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settle:
    """Point huggingface_hub, which reads its environment once, at another Hub, home and token."""

    def point(hub: FakeHub, token: str | None = None, home: Path = tmp_path / "home") -> Here:
        ours = hub.env(home, token)
        for key in ("HF_TOKEN", "HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE", "NO_PROXY"):
            monkeypatch.setenv(key, ours[key]) if key in ours else monkeypatch.delenv(key, raising=False)
        values = {
            "ENDPOINT": hub.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
            "AGENT_HARNESSES_PATH": str(home / ".agent_harnesses.json"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": not hub.xet,
            "HF_HUB_DISABLE_TELEMETRY": True,
        }
        for name, value in values.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(retry, "FIRST_WAIT", 0.01)
        return Here(home, token)

    return point


@pytest.fixture
def here(hub: FakeHub, settle: Settle) -> Here:
    """This process with an empty home and no token."""
    return settle(hub)


@pytest.fixture
def python(hub: FakeHub, tmp_path: Path) -> Callable[..., str]:
    """Run a program with the real client, imported as `hf`; what it prints last."""

    def run(program: str, *arguments: object, token: str | None = None, offline: bool = False) -> str:
        command = [sys.executable, "-c", f"import sys, huggingface_hub as hf\n{program}", *map(str, arguments)]
        env = hub.env(tmp_path / "home", token) | ({"HF_HUB_OFFLINE": "1"} if offline else {})
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run
