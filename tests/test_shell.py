"""What a shell meets: completion, JSON for programs, exit codes."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from conftest import write_picture
from ugatit.cli import COMMANDS, main, usage
from ugatit.commands.completion import kinds


@pytest.fixture(scope="module")
def scripts(tmp_path_factory) -> dict[str, str]:
    made = {}
    for shell in ("bash", "zsh", "fish"):
        done = subprocess.run([sys.executable, "-m", "ugatit", "completion", shell], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        made[shell] = done.stdout
    return made


def test_every_command_can_be_completed():
    assert list(kinds()) == list(COMMANDS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_know_commands_options_and_values(scripts, shell):
    for word in (*COMMANDS, "--resume", "--cycle-weight", "--attention", "efficientnet-lite0"):
        assert word in scripts[shell], word


def complete(script: str, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    line = f"""
{script}
COMP_WORDS=({" ".join(f"'{word}'" for word in words)}); COMP_CWORD={len(words) - 1}; COMP_LINE='{" ".join(words)}'
COMP_POINT=${{#COMP_LINE}}
eval "$(complete -p ugatit | sed 's/.*-F \\([^ ]*\\).*/\\1/')" ugatit '{words[-1]}' '{words[-2]}'
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    return [word.strip() for word in done.stdout.split("\n") if word.strip()]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("ugatit", "tra"), {"train", "translate"}),
        (("ugatit", "translate", "--att"), {"--attention"}),
        (("ugatit", "train", "--precision", "b"), {"bf16"}),
        (("ugatit", "train", "--res"), {"--resume"}),
    ],
)
def test_bash_completes(scripts, words, offered):
    assert offered <= set(complete(scripts["bash"], *words))


def test_programs_read_json_from_the_standard_output(data, tmp_path, capsys):
    for domain in "AB":
        for number in range(4):
            write_picture(data / f"test{domain}" / f"{number}.png", number)
    options = ["--features", "efficientnet-lite0", "--size", "32", "--json", "-o", str(tmp_path / "e")]
    assert main(["evaluate", "--real", str(data / "testA"), "--fake", str(data / "testB"), *options]) == 0
    told = capsys.readouterr().out
    assert json.loads(told) == json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert main(["inspect", "face2anime", "--json", "-o", str(tmp_path / "i")]) == 0
    told = capsys.readouterr().out
    assert json.loads(told) == json.loads((tmp_path / "i" / "inspection.json").read_text())


def test_the_help_tells_the_exit_codes(capsys):
    assert main(["nothing"]) == 2 and main(["train", "/nowhere"]) == 2 and main([]) == 0
    assert "0 done, 2 bad input" in usage()


@pytest.mark.parametrize(
    ("words", "buffered"),
    [(["--help"], True), (["--help"], False), (["train", "--help"], True), (["translate"], False)],
)
def test_nobody_who_reads_is_no_failure(words, buffered):
    """As where head has enough: one exit code, and nothing said."""
    read, write = os.pipe()
    os.close(read)
    environment = os.environ | ({} if buffered else {"PYTHONUNBUFFERED": "1"})
    command = [sys.executable, "-m", "ugatit", *words]
    done = subprocess.run(
        command, stdout=write, stderr=write if words == ["translate"] else subprocess.PIPE, env=environment
    )
    os.close(write)
    assert done.returncode == 141 and not done.stderr
