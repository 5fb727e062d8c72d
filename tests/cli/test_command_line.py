"""The commands as a shell runs them. These tests are about what goes into the program and what comes out: the
computation is replaced by `STAND_IN`, which does what a test asks for.
"""

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from boltzgen.cli import options
from boltzgen.cli.progress import RichReporter, printable
from boltzgen.config import Config, known_keys
from boltzgen.progress import Progress

COMMANDS = ("run", "prepare", "train", "sample", "reweight", "analyze", "md", "info", "selftest")

STAND_IN = """
import dataclasses, os, pathlib, sys, types
from boltzgen import errors
from boltzgen.progress import Progress

@dataclasses.dataclass
class Context:
    reporter: object
    force: bool
    command_line: str
    resume: bool = True
    max_time: float | None = None

def answer(name):
    def function(*arguments, **keywords):
        *given, config, context = arguments if name != "info" else (*arguments, None, None)
        exec(os.environ.get("SCENARIO", ""), globals(), {"context": context, "name": name})
        summary = {"given": [str(item) for item in given], "ess": 10.0, "khat": float("inf"), **keywords}
        if config:
            summary["config"] = config.model_dump(mode="json")
            summary["context"] = [context.force, context.resume, context.max_time, context.command_line]
        summary["omp"] = os.environ.get("OMP_NUM_THREADS")
        return types.SimpleNamespace(
            command=name, run=pathlib.Path("mol.run"), skipped=False, summary=summary,
            text="ESS 10\\x1b[31m\\u202e", exit_code=int(os.environ.get("RESULT_CODE", 0)),
        )
    return function

workflow = types.ModuleType("boltzgen.workflow")
workflow.Context = Context
for name in ("prepare", "train", "sample", "reweight", "analyze", "run_all", "info", "preview", "md", "preview_md"):
    setattr(workflow, name, answer(name))
sys.modules["boltzgen.workflow"] = workflow
from boltzgen.cli.app import main
main()
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mol.pdb").write_text("ATOM\n")
    (tmp_path / "mol.run").mkdir()
    return tmp_path


def start(folder, arguments, scenario="", environment=None, **pipes):
    environment = {**os.environ, "SCENARIO": scenario, "TMPDIR": str(folder), **(environment or {})}
    return subprocess.Popen(
        [sys.executable, "-c", STAND_IN, *arguments], cwd=folder, env=environment, text=True, **pipes
    )


def shell(folder, arguments, scenario="", environment=None):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start(folder, arguments, scenario, environment, **pipes)
    process.stdout, process.stderr = (io.StringIO(text) for text in process.communicate(timeout=60))
    return process.returncode, process.stdout.getvalue(), process.stderr.getvalue()


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys; sys.argv[1:] = sys.argv[1:]\n"
        "from boltzgen.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert stop.code == 0, stop.code\n"
        "heavy = 'torch openmm rdkit numpy scipy matplotlib h5py mdtraj boltzgen.config boltzgen.workflow'\n"
        "assert not (found := set(heavy.split()) & set(sys.modules)), found\n"
    )
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


def test_help_shows_the_defaults_that_the_configuration_has():
    flags = [*options.COMMON, *(value for value in vars(options).values() if isinstance(value, options.Flag))]
    for flag in flags:
        if flag.key:
            assert flag.key in known_keys()
            default = Config()
            for part in flag.key.split("."):
                default = getattr(default, part)
            shown = None if default is None or default is False or default == () else str(default)
            assert flag.default == shown, flag.key


USAGE = [
    ([], "no molecule is given"),
    (["none.pdb"], "none.pdb: no such file. Check the path."),
    (["CC(=O)NC"], "CC(=O)NC: no such file. Check the path, or give a SMILES by --smiles."),
    (["mol.run"], "mol.run: is a folder"),
    (["--smiles", "CC"], "Add -o NAME.run"),
    (["mol.pdb", "--max-time", "soon"], "--max-time soon: must be a time"),
    (["mol.pdb", "--temperature", "-5"], "prepare.temperature = -5: must be a number > 0 and <= 1500"),
    (["mol.pdb", "--ff", ""], "prepare.force_field = '': must be text that is not empty"),
    (["mol.pdb", "--set", "train.presett=quick"], "Did you mean train.preset?"),
    (["mol.pdb", "--no-such-flag"], "No such option: --no-such-flag"),
    (["mol.pdb", "--seed"], "requires an argument"),
]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        *((["run", *arguments], says) for arguments, says in USAGE),
        (["train", "mol.run", "-o", "other.run"], "Leave -o out"),
        (["train", "mol.run", "--solvent", "hct"], "is prepared already"),
        (["md", "mol.run", "--solvent", "hct"], "is prepared already"),
        (["md", "none.run"], "none.run: no such file"),
        (["md", "mol.run", "--time-budget", "soon"], "md.time_budget = soon: must be a time"),
        (["md", "mol.run", "--set", "md.rungs=1"], "md.rungs = 1: must be an integer >= 2"),
        (["sample"], "no run directory is given"),
        (["sample", "none.run"], "none.run: no such run directory"),
        (["sample", "mol.pdb"], "mol.pdb: is a file"),
        (["sample", "mol.run", "-n", "0"], "sample.n = 0: must be an integer >= 1"),
        (["reweight", "mol.run", "--temperature", "nan"], "reweight.temperatures = ['nan']: must be a list"),
        (["info", "none"], "none: no such file"),
        (["no-such-command"], "No such command"),
    ],
)
def test_bad_usage_is_one_line_and_writes_nothing(folder, arguments, says):
    before = names(folder)
    code, out, err = shell(folder, arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert says in err
    assert names(folder) == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["run", "mol.pdb", "-o", "mol.pdb"], 4), (["run", "mol.pdb", "-o", "none/mol.run"], 6)],
)
def test_impossible_output_is_found_before_any_work(folder, arguments, expected):
    code, out, err = shell(folder, arguments, "raise AssertionError('work has begun')")
    assert (code, out, err.count("\n")) == (expected, "", 1)


@pytest.mark.parametrize(
    ("scenario", "expected", "says"),
    [
        ("raise errors.InputError('mol.pdb:3: bad\\x1b[2J\\nline.')", 2, "error: mol.pdb:3: bad line.\n"),
        ("raise errors.UnsupportedError('metal.')", 3, "error: metal.\n"),
        ("raise errors.ConflictError('other inputs.')", 4, "error: other inputs.\n"),
        ("raise errors.EnvironmentProblem('no CUDA.')", 5, "error: no CUDA.\n"),
        ("raise MemoryError", 5, "error: out of memory."),
        (
            "class OutOfMemoryError(RuntimeError): pass\nraise OutOfMemoryError('CUDA')",
            5,
            "error: out of memory.",
        ),
        ("raise errors.StorageError('full.')", 6, "error: full.\n"),
        (
            "raise OSError(28, 'No space left on device', 'flow.h5')",
            6,
            "error: flow.h5: No space left on device",
        ),
        ("raise PermissionError(13, 'Permission denied', 'x')", 6, "error: x: Permission denied"),
        ("raise errors.GateError('ESS 3 < 5.')", 7, "error: ESS 3 < 5.\n"),
        ("raise errors.Interrupted('stopped, checkpoint saved.')", 75, "error: stopped"),
        ("raise errors.Interrupted('terminated, checkpoint saved.', 143)", 143, "error: terminated"),
        ("raise KeyboardInterrupt", 130, "error: interrupted.\n"),
    ],
)
def test_exit_codes(folder, scenario, expected, says):
    before = names(folder)
    code, out, err = shell(folder, ["sample", "mol.run"], scenario)
    assert (code, out) == (expected, "")
    assert err.startswith(says)
    assert err.count("\n") == 1
    assert names(folder) == before


def test_bug_keeps_its_traceback_in_the_run_directory(folder):
    code, out, err = shell(folder, ["sample", "mol.run"], "raise ZeroDivisionError('oops')")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "ZeroDivisionError: oops" in err
    assert "mol.run/log.txt" in err
    assert "Traceback" in (folder / "mol.run/log.txt").read_text()


def test_bug_before_a_run_directory_exists_keeps_its_traceback_elsewhere(folder):
    code, _, err = shell(folder, ["prepare", "mol.pdb", "-o", "new.run"], "raise ZeroDivisionError('oops')")
    assert code == 1
    path = Path(err.rstrip("\n").rstrip(".").split()[-1])
    assert "Traceback" in path.read_text()


def test_debug_shows_the_traceback(folder):
    code, _, err = shell(folder, ["sample", "mol.run", "--debug"], "raise errors.InputError('bad.')")
    assert code == 2
    assert "Traceback" in err
    assert err.endswith("error: bad.\n")


def test_flags_file_and_overrides_reach_the_workflow(folder):
    (folder / "run.toml").write_text("[prepare]\nsolvent = 'hct'\n[sample]\nn = 10\n")
    line = """run mol.pdb -c run.toml --set sample.n=20 --set sample.batch_size=64 -n 1e3 --ff ff96
        --temperature 310 --preset quick --time-budget 30m --device cpu --require-ess 0.3 --strict --seed 5
        --threads 2 --max-time 01:00:00 --no-resume --force --json"""
    arguments = line.split()
    code, out, _ = shell(folder, arguments)
    assert code == 0
    record = json.loads(out)
    config = record["config"]
    assert record["given"] == ["mol.pdb", "None", "mol.run"]
    assert record["context"] == [True, False, 3600.0, "boltzgen " + " ".join(arguments)]
    assert record["omp"] == "1"  # threads share batches, not operations
    assert (config["seed"], config["threads"]) == (5, 2)
    chosen = {"force_field": "ff96", "solvent": "hct", "temperature": 310.0}
    assert config["prepare"] == Config().prepare.model_dump(mode="json") | chosen
    assert (config["train"]["preset"], config["train"]["time_budget"]) == ("quick", 1800.0)
    assert (config["sample"]["n"], config["sample"]["batch_size"]) == (1000, 64)
    assert (config["analyze"]["require_ess"], config["analyze"]["strict"]) == (0.3, True)


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["prepare", "mol.pdb"], ["mol.pdb", "None", "mol.run"]),
        (["prepare", "--smiles", "CC", "-o", "new.run"], ["None", "CC", "new.run"]),
        (["train", "mol.pdb", "--max-energies", "5e6"], ["mol.pdb", "None", "mol.run"]),
        (["train", "mol.run"], ["mol.run", "None", "mol.run"]),
        (["sample", "mol.run", "--shard", "1/2"], ["mol.run"]),
        (["reweight", "mol.run", "--temperature", "310", "--temperature", "320"], ["mol.run"]),
        (["analyze", "mol.run"], ["mol.run"]),
        (["md", "mol.run", "--time-budget", "90s"], ["mol.run", "None", "mol.run"]),
        (["md", "mol.pdb"], ["mol.pdb", "None", "mol.run"]),
        (["info", "mol.pdb"], ["mol.pdb"]),
    ],
)
def test_every_command_calls_its_function(folder, arguments, given):
    code, out, _ = shell(folder, [*arguments, "--json"])
    record = json.loads(out)
    assert (code, record["command"], record["given"]) == (0, arguments[0], given)
    if arguments[0] == "reweight":
        assert record["config"]["reweight"]["temperatures"] == [310.0, 320.0]


def test_summary_goes_to_stdout_without_control_characters(folder):
    assert shell(folder, ["sample", "mol.run"]) == (0, "ESS 10\n", "")


def test_quiet_says_nothing_but_warnings(folder):
    scenario = "context.reporter.info('x'); context.reporter.warn('careful')"
    assert shell(folder, ["sample", "mol.run", "-q"], scenario) == (0, "", "warning: careful\n")


def test_json_is_one_object_on_stdout_and_people_read_stderr(folder):
    code, out, err = shell(folder, ["sample", "mol.run", "--json"], "context.reporter.info('note')")
    assert (code, out.count("\n")) == (0, 1)
    record = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert record["ess"] == 10.0
    assert record["khat"] is None
    assert err == "note\nESS 10\n"


@pytest.mark.parametrize("arguments", [["sample", "none.run"], ["sample", "mol.run", "--no-such-flag"], ["bogus"]])
def test_json_after_an_error_is_one_object_too(folder, arguments):
    code, out, err = shell(folder, [*arguments, "--json"])
    record = json.loads(out)
    assert (code, record["exit_code"]) == (2, 2)
    assert err == f"error: {record['error']}\n"


def test_missed_gate_is_exit_7_with_the_results(folder):
    code, out, _ = shell(folder, ["analyze", "mol.run", "--json"], environment={"RESULT_CODE": "7"})
    assert (code, json.loads(out)["exit_code"]) == (7, 7)


def test_dry_run_writes_nothing_and_names_what_it_would(folder):
    before = names(folder)
    scenario = "raise AssertionError('work has begun')"
    code, out, err = shell(folder, ["sample", "mol.run", "--shard", "3/8", "--dry-run", "--json"], scenario)
    assert (code, err.startswith("seed = 0")) == (0, True)
    assert json.loads(out)["files"] == ["mol.run/samples-00003-of-00008.h5"]
    assert names(folder) == before
    assert shell(folder, ["run", "mol.pdb", "--set", "sample.n=0", "--dry-run"])[0] == 2


@pytest.mark.parametrize(("name", "trains"), [("prepare", False), ("train", True), ("run", True)])
def test_dry_run_of_a_molecule_asks_for_its_plan_and_for_nothing_else(folder, name, trains):
    before = names(folder)
    scenario = "assert name == 'preview', name"
    code, out, err = shell(folder, [name, "mol.pdb", "--dry-run", "--json", "--seed", "7"], scenario)
    record = json.loads(out)
    assert (code, record["dry_run"], record["trains"], record["config"]["seed"]) == (0, True, trains, 7)
    assert record["given"] == ["mol.pdb", "None", "mol.run"]
    assert record["files"][0] == "mol.run/system.h5"
    assert "ESS 10" in err
    assert "\x1b" not in err
    assert names(folder) == before


def test_dry_run_fails_with_the_exit_code_of_the_command(folder):
    scenario = "raise errors.UnsupportedError('mol.pdb: is no molecule')"
    code, out, err = shell(folder, ["run", "mol.pdb", "--dry-run"], scenario)
    assert (code, out, err) == (3, "", "error: mol.pdb: is no molecule\n")


def test_dumped_configuration_can_be_read_back(folder):
    code, out, _ = shell(folder, ["train", "--dump-config", "--preset", "quick", "--seed", "3"])
    assert code == 0
    (folder / "run.toml").write_text(out)
    assert shell(folder, ["train", "--dump-config", "-c", "run.toml"]) == (0, out, "")


def test_closed_stdout_is_quiet(folder):
    reader, writer = os.pipe()
    os.close(reader)
    process = start(folder, ["sample", "mol.run"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def test_closed_stderr_does_not_end_the_work(folder):
    reader, writer = os.pipe()
    os.close(reader)
    scenario = "context.reporter.info('x'); context.reporter.progress(Progress('train', 0.5))"
    process = start(folder, ["sample", "mol.run", "--json"], scenario, stdout=subprocess.PIPE, stderr=writer)
    os.close(writer)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, json.loads(out)["ess"]) == (0, 10.0)


def test_namesake_beside_is_warned_of(folder):
    info = folder / "site/boltzgen-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: boltzgen\nVersion: 1.2\n")
    code, _, err = shell(folder, ["info", "mol.run"], environment={"PYTHONPATH": str(info.parent)})
    assert code == 0
    assert err.startswith("warning: another distribution named boltzgen (1.2)")


def test_terminal_gets_a_live_bar_and_no_color_is_obeyed(folder):
    scenario = (
        "r = context.reporter\n"
        "r.progress(Progress('train', 0.25, 60.0, {'ess': 0.5}))\n"
        "r.info('a [bold]note[/bold]')\n"
        "r.done('train')"
    )
    screens = {}
    for flag in ([], ["--no-color"]):
        master, slave = pty.openpty()
        environment = {"TERM": "xterm-256color", "NO_COLOR": "", "COLUMNS": "120"}
        process = start(
            folder,
            ["sample", "mol.run", *flag],
            scenario,
            environment,
            stdout=slave,
            stderr=slave,
            stdin=slave,
        )
        os.close(slave)
        chunks = []
        try:
            while chunk := os.read(master, 65536):
                chunks.append(chunk)
        except OSError:  # Linux reports the end of a terminal as an error
            pass
        os.close(master)
        assert process.wait(timeout=60) == 0
        screens[bool(flag)] = b"".join(chunks).decode()
    assert "ess 0.5" in screens[False]
    assert "a [bold]note[/bold]" in screens[False]
    assert "done in" in screens[False]
    assert "\x1b[3" in screens[False]  # a colour
    assert "\x1b[3" not in screens[True]


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_log_file_is_alive_but_not_flooded():
    stream, clock = io.StringIO(), Clock()
    with RichReporter(stream=stream, clock=clock) as reporter:
        for second in range(12):
            clock.now = float(second)
            fields = {"energies": 500 + 200 * second, "ess": 0.123456, "phase": "anneal\x1b[2J"}
            reporter.progress(Progress("train", second / 12, 12.0 - second, fields))
        reporter.done("train")
    assert stream.getvalue().splitlines() == [
        "train   0%  energies 500  ess 0.123  phase anneal  12s left",
        "train  42%  energies 1,500 (200/s)  ess 0.123  phase anneal  7s left",
        "train  83%  energies 2,500 (200/s)  ess 0.123  phase anneal  2s left",
        "train done in 11s",
    ]


def test_what_could_drive_a_terminal_is_removed():
    assert printable("a\x1b[31mb\x1b]0;title\x07c\x9b1md\u202ee\udcfff\tg\nh") == "abc1mdef\tg\nh"
    assert printable(" a\r\n b\n", one_line=True) == "a b"
