"""Every gemmaq command of the README runs, in the README's order."""

import re
import shlex
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL)
    lines = [part.strip() for block in blocks for line in block.splitlines() for part in line.split("&&")]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("gemmaq ")]


def test_every_command_shown_works(gemmaq, tmp_path):
    assert len(commands()) >= 8
    for arguments in commands():
        gemmaq(*arguments, cwd=tmp_path)
    assert (tmp_path / "out" / "gemma-3-270m-Q4_0.gguf").is_file()
