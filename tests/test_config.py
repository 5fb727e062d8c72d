from pathlib import Path

import pytest

from boltzgen.config import Config, dump_config, known_keys, parse_duration, resolve_config
from boltzgen.errors import InputError


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_precedence_is_defaults_file_overrides_flags(tmp_path):
    path = write(tmp_path, "[prepare]\nsolvent = 'hct'\ntemperature = 310\nforce_field = 'ff96'\n")
    overrides = ["prepare.temperature=320", "prepare.force_field=ff99SB"]
    config = resolve_config(path, overrides, {"prepare.force_field": "ff03"})
    assert config.prepare.conformers == Config().prepare.conformers
    assert config.prepare.solvent == "hct"
    assert config.prepare.temperature == 320.0
    assert config.prepare.force_field == "ff03"


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["seed=7", "train.time_budget=1h30m", "train.max_energies=5e6", "sample.shard=3/8"],
        ["reweight.temperatures=[300, 310.5]", "analyze.require_ess=0.3", "analyze.strict=true"],
        ['prepare.force_field="quote \\" back \\\\ tab \\t é 😀 del \\u007f"'],
        ["train.learning_rate=1e-7"],
    ],
)
def test_dumped_configuration_loses_nothing(overrides, tmp_path):
    config = resolve_config(None, overrides, {})
    assert resolve_config(write(tmp_path, dump_config(config)), [], {}) == config


def test_dumped_configuration_shows_every_key():
    text = dump_config(Config())
    assert all(f"{key.rpartition('.')[2]} =" in text for key in known_keys())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("30m", 1800),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("01:30:00", 5400),
        ("1d", 86400),
    ],
)
def test_durations(text, seconds, tmp_path):
    assert parse_duration(text) == seconds
    quoted = write(tmp_path, f"[train]\ntime_budget = '{text}'\n")
    assert resolve_config(quoted, [], {}).train.time_budget == seconds


def test_unquoted_time_in_a_file_is_a_duration(tmp_path):
    path = write(tmp_path, "[train]\ntime_budget = 01:30:00\n")
    assert resolve_config(path, [], {}).train.time_budget == 5400


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("prepare.temprature=300", "Did you mean prepare.temperature?"),
        ("temperature=300", "Did you mean prepare.temperature?"),
        ("zzz=1", "unknown key zzz"),
        ("train.a.b=1", "unknown key train.a.b"),
        ("train=1", "is a section"),
        ("prepare.temperature", "section.key=value"),
        ("prepare.temperature=0", "must be a number > 0 and <= 1500"),
        ("prepare.temperature=nan", "must be a number > 0 and <= 1500"),
        ("prepare.temperature=inf", "must be a number > 0 and <= 1500"),
        ("prepare.temperature=warm", "must be a number > 0 and <= 1500"),
        ("prepare.solvent=water", "must be one of auto, vacuum, hct, obc1, obc2, gbn, gbn2"),
        ("prepare.force_field=", "must be text that is not empty"),
        ("sample.n=0", "must be an integer >= 1"),
        ("sample.n=1.5", "must be an integer >= 1"),
        ("sample.n=1e400", "must be an integer >= 1"),
        ("sample.inner=0", "must be an integer >= 1"),
        ("sample.refine=-1", "must be an integer >= 0"),
        ("sample.shard=0/8", "must be i/N with 1 <= i <= N"),
        ("sample.shard=9/8", "must be i/N with 1 <= i <= N"),
        ("train.time_budget=1:30", "must be a time such as"),
        ("train.time_budget=0s", "must be a number > 0"),
        ("train.device=gpu", "must be one of auto, cpu, mps, cuda"),
        ("train.method=dat", "must be one of annealed, energy, data"),
        ("train.data_weigth=0.5", "Did you mean train.data_weight?"),
        ("train.data_weight=1.5", "must be a number >= 0 and <= 1"),
        ("train.data=x.h5", "must be a list, each text"),
        ("train.rc_range=[a]", "not a valid TOML value"),
        ("analyze.require_ess=0", "must be a number > 0"),
        ("analyze.strict=perhaps", "must be true or false"),
        ("reweight.temperatures=[300, -1]", "must be a list, each a number > 0"),
        ("reweight.temperatures=[300", "not a valid TOML value"),
    ],
)
def test_bad_value_is_refused_in_one_line_with_what_is_allowed(override, says):
    with pytest.raises(InputError) as caught:
        resolve_config(None, [override], {})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed = 1\n[prepare\n", "run.toml:2: not valid TOML"),
        ("seed = 1\nseed = 2\n", "run.toml:2: not valid TOML"),
        ("[prepare]\n\ntemperature = -3\n", "run.toml:3: prepare.temperature = -3: must be a number > 0"),
        (
            "[train]\nmax_energy = 3\n",
            "run.toml:2: unknown key train.max_energy. Did you mean train.max_energies?",
        ),
        ("seed = true\n", "run.toml:1: seed = True: must be an integer"),
        ("prepare.temperature = true\n", "run.toml:1: prepare.temperature = True: must be a number"),
        ("train = 3\n", "run.toml:1: train: is a section"),
        ("[prepare.solvent]\nx = 1\n", "prepare.solvent = {'x': 1}: must be one of"),
    ],
)
def test_bad_file_is_refused_with_file_and_line(text, says, tmp_path):
    with pytest.raises(InputError) as caught:
        resolve_config(write(tmp_path, text), [], {})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_folder_and_binary_files_are_refused(tmp_path):
    binary = tmp_path / "x.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.toml", tmp_path, binary):
        with pytest.raises(InputError):
            resolve_config(path, [], {})
