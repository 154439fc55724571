"""JavaScript oracles: packages of npm under $GEMMAQ_ORACLES, run by node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

UTILS = "@huggingface/ollama-utils"
GGUF = "@huggingface/gguf"
TASKS = "@huggingface/tasks"
TEMPLATES = "@evertdespiegeleer/go-template"

_READ = "import fs from 'node:fs'; const given = JSON.parse(fs.readFileSync(0, 'utf8'));\n"
_WRITE = "\nprocess.stdout.write(JSON.stringify(answer) ?? 'null', () => process.exit(0));"


def need(require: Callable[[bool, str], None], package: str) -> None:
    """Skip a test, or fail it under --require-oracles, where node or a package is missing."""
    require(shutil.which("node") is not None, "node")
    require((_root() / "node_modules" / package).is_dir(), f"npm package {package}")


def run(script: str, given: object) -> Any:
    """Run a module that makes `answer` of `given`."""
    command = ["node", "--input-type=module", "-e", _READ + script + _WRITE]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, cwd=_root(), timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _root() -> Path:
    return Path(os.environ.get("GEMMAQ_ORACLES", ".oracles")).absolute()


def known_templates() -> dict[str, dict[str, Any]]:
    """Gemma 3's entries among the chat templates that @huggingface/ollama-utils knows: model -> gguf, ollama."""
    script = f"""
    const source = fs.readFileSync("node_modules/{UTILS}/dist/index.js", "utf8");
    const {{createRequire}} = await import("node:module");
    const made = {{exports: {{}}}};
    const more = "\\nmodule.exports.known = OLLAMA_CHAT_TEMPLATE_MAPPING;";
    const require = createRequire(process.cwd() + "/x.js");
    new Function("module", "exports", "require", source + more)(made, made.exports, require);
    const answer = made.exports.known.filter(one => one.model.startsWith("library/gemma3:"));
    """
    return {entry["model"]: entry for entry in run(script, None)}


def go(template: str, values: list[dict[str, Any]]) -> list[str]:
    """A template of Go's text/template with several values."""
    script = f"""
    import {{parse}} from "{TEMPLATES}";
    const answer = [];
    for (const one of given.values) answer.push(await parse(given.template, one));
    """
    found: list[str] = run(script, {"template": template, "values": values})
    return found
