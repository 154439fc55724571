"""`gemmaq push` as scripts see it; what is published is tested in tests/artifact."""

from __future__ import annotations

import json
from pathlib import Path

from fake_hub import FakeHub
from home import Settle


def test_a_dry_run_and_a_real_one_agree(hub: FakeHub, settle: Settle, small_gguf: Path) -> None:
    hub.tokens["hf_write"]["orgs"] = ["acme"]
    here = settle(hub, "hf_write")
    planned = json.loads(here.run("push", small_gguf, "acme/mine", "--dry-run", "--json").stdout)
    assert planned["schema"] == "gemmaq.push/1" and planned["commit"] is None
    assert all(file["missing"] and not file["sent"] for file in planned["files"])
    done = json.loads(here.run("push", small_gguf, "acme/mine", "--json").stdout)
    assert done["commit"] and done["url"]
    assert all(file["sent"] for file in done["files"])
    assert [file["sha256"] for file in done["files"]] == [file["sha256"] for file in planned["files"]]
    again = here.run("push", small_gguf, "acme/mine", "-q")
    assert (again.stdout, again.stderr) == ("", "")


def test_a_name_that_is_none(hub: FakeHub, settle: Settle, small_gguf: Path) -> None:
    here = settle(hub, "hf_write")
    for name in ("mine", "acme/mine@branch", "acme/mine:Q4_0"):
        assert "org/name" in here.run("push", small_gguf, name, code=2).stderr
