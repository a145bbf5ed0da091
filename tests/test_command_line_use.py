"""How the command line speaks and ends: its own options in every text, closed pipes, pictures, and which files run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_gguf_hostile import ARCHITECTURE, F32, STRING, U32, WIDTH, header, key

import rope_numba as rn
from rope_numba import __main__ as command
from rope_numba import kernels, selfcheck
from rope_numba.inspecting import OPTIONS

CONFIGS = Path(__file__).parent / "configs"
LLAMA: dict[str, Any] = {"model_type": "llama", "head_dim": 16, "rope_theta": 1e4, "num_hidden_layers": 2}
LONGROPE = {
    **LLAMA,
    "rope_scaling": {
        "rope_type": "longrope",
        "short_factor": [1.0] * 8,
        "long_factor": [2.0] * 8,
        "original_max_position_embeddings": 64,
    },
}
GEMMA = {"model_type": "gemma3_text", "head_dim": 16, "num_hidden_layers": 6}


def written(folder: Path, config: dict[str, Any]) -> str:
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return str(path)


def process(*arguments: str, cwd: Path | str = "/", **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rope_numba", *arguments],
        cwd=cwd,
        text=True,
        check=False,
        timeout=240,
        **{"capture_output": True, **more},
    )


# --- its own options


CASES: dict[str, tuple[dict[str, Any] | bytes, list[str]]] = {
    "unknown key": ({**LLAMA, "rope_foo": 1}, []),
    "unknown key of a scheme": ({**LLAMA, "rope_scaling": {"rope_type": "linear", "factor": 2.0, "x": 1}}, []),
    "unknown key of params.json": ({"dim": 64, "n_heads": 4, "rope_theta": 1e4, "yarn": {"x": 1, "factor": 2}}, []),
    "unknown model": ({"model_type": "novel", "head_dim": 16}, []),
    "unknown scheme": ({**LLAMA, "rope_scaling": {"rope_type": "novel"}}, []),
    "refused model": ({"model_type": "openpangu", "head_dim": 16, "rope_theta": 1e4}, []),
    "length of nothing": (LLAMA, ["--seq-len", "0"]),
    "length of far too much": (LONGROPE, ["--seq-len", str(10**17)]),
    "length beyond the model": ({**LLAMA, "max_position_embeddings": 64}, ["--seq-len", "65"]),
    "length that decides": (LONGROPE, ["--seq-len", "65"]),
    "length that was not given": (LONGROPE, []),
    "length of dynamic": (
        {**LLAMA, "max_position_embeddings": 64, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
        [],
    ),
    "no such layer": (GEMMA, ["--layer-type", "novel"]),
    "no such layer of one kind": (LLAMA, ["--layer-type", "novel"]),
    "no folder": ({}, ["--plot", "no/such/folder.png"]),
    "gguf: unknown key": (header([ARCHITECTURE, WIDTH, key("olmo.rope.x", U32, 1)]), []),
    "gguf: unknown architecture": (
        header([key("general.architecture", STRING, "novel"), key("novel.attention.key_length", U32, 8)]),
        [],
    ),
    "gguf: refused architecture": (header([key("general.architecture", STRING, "gptj")]), []),
    "gguf: length of nothing": (header(), ["--seq-len", "0"]),
    "gguf: no such layer": (header(), ["--layer-type", "novel"]),
    "gguf: no base": (
        header([key("general.architecture", STRING, "llama"), key("llama.attention.key_length", U32, 8)]),
        [],
    ),
    "gguf: damaged": (header(key_count=9), []),
    "gguf: xdrope": (
        header(
            [
                key("general.architecture", STRING, "hunyuan_vl"),
                key("hunyuan_vl.attention.key_length", U32, 8),
                key("hunyuan_vl.rope.freq_base", F32, 1e4),
                key("hunyuan_vl.rope.dimension_sections", 9, (U32, [1, 1, 1, 1])),
            ]
        ),
        [],
    ),
}
# Names of arguments as a caller in Python writes them, in the texts of a command line that has others.
PYTHON = re.compile(
    r"(?<!-)\b(strict|seq_len|layer_type|layout|inv_freq|config|path)( is |=)|\bNone\b|\bseq_len\b(?!  )"
)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("lenient", [[], ["--lenient"]])
def test_texts_of_the_command_line_name_its_options_and_no_argument_of_python(
    name: str, lenient: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, arguments = CASES[name]
    path = tmp_path / "model"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    status = command.main(["inspect", str(path), *arguments, *lenient])
    told = capsys.readouterr()
    text = (told.out + told.err).replace(str(tmp_path), "")
    assert not PYTHON.search(text), PYTHON.search(text)
    assert (status == 0) == bool(told.out)
    for option in arguments[::2]:
        if status == 2:
            assert option in told.err


def test_the_rule_above_sees_python_s_own_texts() -> None:
    with pytest.raises(ValueError, match="strict=False") as refused:
        rn.Rope.from_hf({**LLAMA, "rope_foo": 1})
    assert PYTHON.search(str(refused.value))
    with pytest.raises(ValueError, match="seq_len is 0") as refused:
        rn.Rope.from_hf(LLAMA, seq_len=0)
    assert PYTHON.search(str(refused.value))
    assert PYTHON.search(rn.Rope.from_hf(LONGROPE).explain())
    assert set(OPTIONS.values()) >= {"--lenient", "--seq-len", "--layer-type", "MODEL"}


def test_python_s_texts_are_its_own_again_after_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["inspect", written(tmp_path, {**LLAMA, "rope_foo": 1})]) == 2
    assert "--lenient" in capsys.readouterr().err
    with pytest.raises(ValueError, match="strict=False"):
        rn.Rope.from_hf({**LLAMA, "rope_foo": 1})


def test_warnings_are_one_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["inspect", written(tmp_path, {**LLAMA, "rope_foo": 1, "rope_bar": 2}), "--lenient"]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().err.splitlines()] == [
        ["warning:", "rope_foo"],
        ["warning:", "rope_bar"],
    ]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("meta-llama/Llama-3-8B", "a name on the Hugging Face Hub? nothing is downloaded"),
        ("llama3:8b", "a name of Ollama? nothing is downloaded"),
        ("no-such-folder", ""),
        ("", ""),
    ],
)
def test_what_is_not_there_gets_one_line(name: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["inspect", name]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert told.err.startswith(f"{name or repr(name)}: No such file or directory")
    assert hint in told.err


# --- pictures


def test_the_files_that_were_drawn_are_named_and_are_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, GEMMA)
    for plot, endings in ((tmp_path / "a.svg", ".svg"), (tmp_path / "b", ".png")):
        assert command.main(["inspect", path, "--plot", str(plot)]) == 0
        told = [line.strip() for line in capsys.readouterr().out.split("\nDrawn:\n")[1].splitlines()]
        expected = {f"{plot.with_suffix('')}_{kind}{endings}" for kind in ("sliding_attention", "full_attention")}
        assert set(told) == expected == {str(p) for p in tmp_path.glob(f"{plot.stem}_*")}
    assert (
        command.main(["inspect", path, "--json", "--layer-type", "full_attention", "--plot", f"{tmp_path}/c.png"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["plots"] == [f"{tmp_path}/c.png"]
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert command.main(["inspect", path, "--json"]) == 0
    assert "plots" not in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("plot", "text"),
    [
        ("no/such/x.png", "and 'no/such' is no folder; expected a folder that exists"),
        ("config.json/x.png", "and 'config.json' is no folder; expected a folder that exists"),
        ("", "expected the name of a file"),
        ("folder", "which is there and no regular file; expected the name of a file"),
        ("folder/", "expected the name of a file"),
        ("pipe.png", "which is there and no regular file; expected the name of a file"),
        ("x.docx", "expected an ending such as '.pdf' or '.png' or '.svg'"),
        ("x\0.png", "which holds a null byte; expected the name of a file"),
        ("y" * 300 + ".png", "which cannot be written (File name too long); expected another file"),
    ],
)
def test_where_no_picture_can_be_written_is_said_before_the_model_is_read(
    plot: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    path = written(tmp_path, LLAMA)
    assert command.main(["inspect", path, "--plot", plot]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert "--plot is " in told.err
    assert text in told.err


def test_drawing_changes_no_backend_of_matplotlib(tmp_path: Path) -> None:
    code = "import matplotlib; matplotlib.use('svg'); from rope_numba import Rope; from rope_numba.plots import draw; "
    code += f"draw(Rope(16), {str(tmp_path / 'x.png')!r}); print(matplotlib.get_backend())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "svg"


# --- how it ends


SHORT_CHECK = (
    "import sys; from rope_numba import __main__, selfcheck; selfcheck.WIDTHS = selfcheck.WIDTHS[4:]; "
    "selfcheck.DTYPES = ('float32',); selfcheck.timings = lambda: iter(()); sys.exit(__main__.run(__main__.main))"
)
COMMANDS = {
    "inspect": ["-m", "rope_numba", "inspect", str(CONFIGS / "llama_3_1_8b.json")],
    "inspect --json": ["-m", "rope_numba", "inspect", "--json", str(CONFIGS / "llama_3_1_8b.json")],
    "--help": ["-m", "rope_numba", "--help"],
    "the check": ["-c", SHORT_CHECK],
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("both", [False, True], ids=["output", "output and errors"])
def test_a_reader_that_leaves_ends_it_quietly(name: str, both: bool) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, *COMMANDS[name]],
        stdout=write,
        stderr=write if both else subprocess.PIPE,
        text=True,
        cwd="/",
        timeout=240,
        check=False,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
    )
    os.close(write)
    # As if the signal had ended it, which Python ignores. argparse takes no notice of help that cannot be written.
    assert done.returncode == 141 or (name == "--help" and done.returncode == 0)
    if not both:
        assert [line for line in done.stderr.splitlines() if "compiling ..." not in line] == []


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("/dev/full is not there")
    with open("/dev/full", "w") as full:
        done = process("inspect", written(tmp_path, LLAMA), stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert (done.returncode, done.stderr) == (2, "standard output: No space left on device\n")


def test_a_closed_output_is_no_error(tmp_path: Path) -> None:
    line = f"{sys.executable} -m rope_numba inspect {written(tmp_path, LLAMA)} >&-"
    done = subprocess.run(["sh", "-c", line], cwd="/", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_letters_that_the_terminal_has_not_are_escaped(encoding: str, tmp_path: Path) -> None:
    folder = tmp_path / "模型-ü"
    folder.mkdir()
    path = written(folder, {**LLAMA, "model_type": "λ"})
    done = process(
        "inspect", path, "--layout", "half", env={**os.environ, "PYTHONIOENCODING": encoding}, encoding=encoding
    )
    assert done.returncode == 0, done.stderr
    assert "\\u6a21\\u578b" in done.stdout
    assert "\\u03bb" in done.stdout


def test_folders_of_this_machine_are_printed_on_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "why_unavailable", lambda: "")
    monkeypatch.setattr(selfcheck, "compare", lambda *_: (1, []))
    monkeypatch.setattr(selfcheck, "timings", lambda: iter(()))
    monkeypatch.setattr(selfcheck, "describe_machine", lambda: {"compiled cache": "/a\nb\x1b[31m\ud800"})
    assert command.main([]) == 0
    assert "/a\\nb\\x1b[31m\\ud800" in capsys.readouterr().out


def test_errors_never_go_to_standard_output_where_standard_error_is_closed(tmp_path: Path) -> None:
    path = written(tmp_path, {**LLAMA, "rope_foo": 1})
    run = f"{sys.executable} -m rope_numba inspect"
    for arguments, status in ((path, 2), ("--bogus", 2), ("/no/such/file", 2), (f"{path} --lenient --json", 0)):
        done = subprocess.run(
            f"{run} {arguments} 2>&-", shell=True, stdout=subprocess.PIPE, text=True, check=False, timeout=240
        )
        assert done.returncode == status
        assert json.loads(done.stdout)["ropes"] if status == 0 else done.stdout == ""


def test_standard_output_that_takes_nothing_gets_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, LLAMA)
    with open(os.devnull) as for_reading:
        done = process("inspect", path, capture_output=False, stdout=for_reading, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (2, "standard output: Bad file descriptor\n")


# --- which files run


def copy_of(folder: Path, version: str) -> Path:
    """Copy the package, with another version and a self-check that takes no time; returns the folder around it."""
    source = Path(rn.__file__).parent
    shutil.copytree(source, folder / "rope_numba", ignore=shutil.ignore_patterns("__pycache__"))
    init = folder / "rope_numba" / "__init__.py"
    init.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', init.read_text()))
    with (folder / "rope_numba" / "selfcheck.py").open("a") as file:
        file.write("\nWIDTHS = WIDTHS[4:5]\nDTYPES = ('float32',)\ntimings = lambda: iter(())\n")
    return folder


def checked(cwd: Path, *path: Path, **more: str) -> tuple[str, str]:
    """Run the self-check somewhere, where nothing is compiled; returns the version and the folder that it names."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    variables |= {"PYTHONPATH": os.pathsep.join(map(str, path)), "NUMBA_DISABLE_JIT": "1", **more}
    done = process(cwd=cwd, env=variables)
    assert done.returncode == 1, done.stderr
    told = dict(re.findall(r"^(rope_numba|files) +(.*)$", done.stdout, re.MULTILINE))
    return told["rope_numba"], told["files"]


def test_the_installed_package_is_checked_from_within_other_sources_too(tmp_path: Path) -> None:
    sources, installed, elsewhere = (tmp_path / name for name in ("sources", "installed", "elsewhere"))
    copy_of(sources, "1.0")
    copy_of(installed, "2.0")
    elsewhere.mkdir()
    for cwd in (sources, elsewhere, installed):
        assert checked(cwd, installed) == ("2.0", str(installed / "rope_numba"))
    link = tmp_path / "link"
    link.symlink_to(sources)
    assert checked(link, installed) == ("2.0", str(installed / "rope_numba"))
    (tmp_path / "model.json").write_text(json.dumps(LLAMA))
    marked = installed / "rope_numba" / "explain.py"
    marked.write_text(marked.read_text().replace('f"Rope of {', 'f"Installed Rope of {'))
    done = process("inspect", "../model.json", cwd=sources, env={**os.environ, "PYTHONPATH": str(installed)})
    assert done.stdout.startswith("Installed Rope of llama"), done.stderr


def test_modules_of_the_working_directory_take_no_other_s_place(tmp_path: Path) -> None:
    installed, elsewhere = copy_of(tmp_path / "installed", "2.0"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("numbers", "numpy", "numba", "json", "statistics"):
        (elsewhere / f"{name}.py").write_text("raise SystemExit('a file of the working directory was run')")
    other = copy_of(tmp_path / "other", "1.0")
    for cwd in (elsewhere, installed / "rope_numba", other / "rope_numba"):
        assert checked(cwd, installed) == ("2.0", str(installed / "rope_numba"))


def test_sources_that_are_installed_in_place_are_the_installed_package(tmp_path: Path) -> None:
    sources = copy_of(tmp_path / "sources", "1.0")
    assert checked(sources, sources) == ("1.0", str(sources / "rope_numba"))


def test_sources_run_where_nothing_is_installed(tmp_path: Path) -> None:
    sources = copy_of(tmp_path / "sources", "1.0")
    paths = [Path(np.__file__).parent.parent]
    code = "import sys; sys.path[0] = ''; from rope_numba.installed import turn_to_installed; "
    code += f"sys.path[1:] = {[*map(str, paths)]!r}; print(turn_to_installed(), sys.path[0] == '')"
    if (paths[0] / "rope_numba").exists():
        pytest.skip("it lies beside NumPy")
    done = subprocess.run([sys.executable, "-c", code], cwd=sources, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
