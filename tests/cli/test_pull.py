"""`gemmaq pull` as scripts see it; transfers are tested in tests/hub, what is chosen in tests/sources."""

from __future__ import annotations

import json
from pathlib import Path

from fake_hub import FakeHub
from home import Here
from repos import REPO, shards, tree


def test_a_dry_run_and_a_real_one_agree(hub: FakeHub, here: Here, out: Path) -> None:
    commit = hub.add(REPO, shards(2, 5000))
    planned = json.loads(here.run("pull", REPO, "--dry-run", "--json").stdout)
    assert planned["schema"] == "gemmaq.pull/1"
    assert (planned["repo"], planned["revision"], planned["commit"]) == (REPO, "main", commit)
    assert planned["missing_bytes"] == planned["bytes"] == sum(file["bytes"] for file in planned["files"])
    done = json.loads(here.run("pull", REPO, "-o", out, "--json").stdout)
    assert (done["path"], done["fetched_bytes"]) == (str(out), planned["bytes"])
    assert [file["path"] for file in done["files"]] == [file["path"] for file in planned["files"]]
    assert tree(out) == {name: data for name, data in shards(2, 5000).items() if name in tree(out)}


def test_quiet_is_the_folder(hub: FakeHub, here: Here, out: Path) -> None:
    hub.add(REPO, shards(1, 500))
    done = here.run("pull", REPO, "-q", "-o", out)
    assert (done.stdout, done.stderr) == (f"{out}\n", "")
    assert "exists" in here.run("pull", REPO, "-o", out, code=7).stderr


def test_a_name_that_is_none(here: Here) -> None:
    assert "org/name" in here.run("pull", "no-such-form", code=2).stderr
