"""The resolved configuration: one frozen record for all stages, and where its values may come from.

Defaults < TOML file < ``--set section.key=value`` < flags. Every value passes the same validation, from
wherever it comes; a key that does not exist is refused with the nearest one that does::

    config = resolve_config(Path("run.toml"), ["prepare.solvent=obc1"], {"prepare.temperature": 310})
    config.prepare.solvent, config.prepare.temperature   # 'obc1', 310.0
    print(dump_config(config))                           # a complete run.toml
"""

from __future__ import annotations

import datetime
import difflib
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from boltzgen.errors import InputError, StorageError

_DURATION_HELP = "must be a time such as 90s, 30m, 1h30m, 01:30:00, or a number of seconds"


def parse_duration(value: Any) -> Any:
    """Seconds from ``"90"``, ``"90s"``, ``"1h30m"``, ``"2d"`` or ``"01:30:00"``; other types pass through.

    Raises
    ------
    ValueError
        If a text has none of these forms.
    """
    if isinstance(value, datetime.time):  # TOML reads an unquoted 01:30:00 as a time of day
        value = value.isoformat()
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    number = r"(\d+(?:\.\d+)?)"
    if match := re.fullmatch(rf"(\d+):(\d\d):{number}", text, re.ASCII):
        hours, minutes, seconds = (float(part) for part in match.groups())
        return 3600 * hours + 60 * minutes + seconds
    pattern = rf"(?:{number}d)?(?:{number}h)?(?:{number}m)?(?:{number}s)?"
    if text and (match := re.fullmatch(pattern, text, re.ASCII)):
        scales = zip((86400, 3600, 60, 1), match.groups(), strict=True)
        return sum(scale * float(part) for scale, part in scales if part)
    try:
        return float(text)
    except ValueError:
        raise ValueError(_DURATION_HELP) from None


def _parse_count(value: Any) -> Any:
    """An integer that may be written 5e6."""
    if not isinstance(value, str | float) or isinstance(value, bool):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    return int(number) if number.is_integer() else value


def _check_shard(value: str) -> str:
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", value, re.ASCII)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError("must be i/N with 1 <= i <= N, such as 3/8")
    return value


def _check_device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", value, re.ASCII):
        raise ValueError("must be one of auto, cpu, mps, cuda, or cuda:N")
    return value


Temperature = Annotated[float, Field(gt=0, le=1500)]
Duration = Annotated[float, Field(gt=0), BeforeValidator(parse_duration)]
Count = Annotated[int, Field(ge=1, le=10**12), BeforeValidator(_parse_count)]
Shard = Annotated[str, AfterValidator(_check_shard)]
Device = Annotated[str, AfterValidator(_check_device)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise PydanticCustomError("truth_value", "not a truth value")
        return value


class PrepareConfig(_Section):
    """From a structure to a system with energy, coordinates and a reference structure."""

    force_field: str = Field(
        default="auto",
        min_length=1,
        description="auto: ff14SB for capped peptides, else MMFF94s; or an AMBER, MMFF, GAFF, OpenFF or Espaloma name",
    )
    solvent: Literal["auto", "vacuum", "hct", "obc1", "obc2", "gbn", "gbn2"] = Field(
        default="auto",
        description="vacuum, or the generalised Born model; auto: obc2 with AMBER force fields, else vacuum",
    )
    system: str | None = Field(
        default=None, min_length=1, description="file of a serialised OpenMM System, in place of a force field"
    )
    temperature: Temperature = Field(default=300.0, description="K, of the ensemble")
    charge: int | None = Field(
        default=None, ge=-100, le=100, description="net charge in e: finds the bond orders of a PDB, or is checked"
    )
    model: int | None = Field(default=None, ge=1, le=10**6, description="which model of a file with several, from 1")
    add_hydrogens: bool = Field(default=False, description="complete a structure that lacks hydrogens")
    stereo: Literal["declared", "pick"] = Field(
        default="declared", description="declared: refuse undefined stereo; pick: draw it with the seed"
    )
    largest_fragment: bool = Field(default=False, description="of several molecules take the largest")
    conformers: int = Field(default=6, ge=1, le=10_000, description="minima averaged in each basin of the rings")
    embeddings: int = Field(default=50, ge=1, le=10_000, description="ETKDG structures that show the basins of rings")


class TrainConfig(_Section):
    """How long, where and how the flow is trained."""

    preset: Literal["quick", "standard", "thorough"] = Field(default="standard", description="length of the schedule")
    time_budget: Duration | None = Field(
        default=None, description="seconds, or text such as 30m; the schedule is fitted to it"
    )
    max_energies: Count | None = Field(default=None, description="energy evaluations; the schedule is fitted to it")
    device: Device = Field(default="auto", description="auto, cpu, mps, cuda or cuda:N")
    start_temperature: float = Field(default=600.0, gt=0, le=10_000, description="K, where annealing begins")
    learning_rate: float = Field(default=3e-3, gt=0, le=1, description="of the optimiser, at its highest")
    method: Literal["annealed", "energy", "data"] = Field(
        default="annealed",
        description="annealed: from energies, cooling; energy: plain reverse KL, loses modes; data: from frames alone",
    )
    seed_basins: bool = Field(
        default=False,
        description="go on with a finished training, from structures of the states that analyze found lost",
    )
    data: tuple[str, ...] = Field(
        default=(), description="trajectories (.h5, .dcd, .xtc, .pdb) of the ensemble, to learn from"
    )
    data_weight: float = Field(
        default=0.5, ge=0, le=1, description="a of (1 - a) losses of energies + a loss of data, where there are data"
    )
    exchange_share: float | None = Field(
        default=None,
        ge=0,
        le=0.9,
        description="of the energies, for replica exchange that looks for what the flow lacks; unset: 1/3, chains 0.6",
    )
    rc: str | None = Field(
        default=None, min_length=1, description="torsion (phi:ALA2 or 4-6-8-14) or distance (1-12) to be spread evenly"
    )
    rc_range: tuple[float, ...] = Field(
        default=(), description="over which range: degrees of a torsion (empty: all), nm of a distance"
    )
    rc_weight: float = Field(default=1.0, gt=0, le=1e4, description="of the loss that spreads rc")


class SampleConfig(_Section):
    """How many samples are drawn, and which part of them."""

    n: Count = Field(default=50_000, description="samples, over all shards")
    shard: Shard | None = Field(default=None, description="i/N: draw only part i of N, counted from 1")
    add: bool = Field(default=False, description="beside the samples that are there, under another seed")
    inner: int = Field(default=1, ge=1, le=10**6, description="redraws of the stiff coordinates behind each sample")
    refine: int = Field(default=0, ge=0, le=10**4, description="bridges over which each draw is annealed to the target")
    temperatures: tuple[Temperature, ...] = Field(
        default=(), description="K, at which samples are drawn alike, for reweighting; empty: the ensemble's"
    )
    hot_share: float = Field(
        default=0.2, ge=0, lt=1, description="of samples drawn a little hotter, against heavy tails of the weights"
    )
    batch_size: int = Field(default=2048, ge=1, le=10**7, description="draws per call of the flow, redraws counted")


class ReweightConfig(_Section):
    """What the samples are reweighted to."""

    temperatures: tuple[Temperature, ...] = Field(default=(), description="K; empty: the temperature of the ensemble")
    force_field: str | None = Field(default=None, min_length=1, description="another one than the run's, by its name")
    solvent: Literal["vacuum", "hct", "obc1", "obc2", "gbn", "gbn2"] | None = Field(
        default=None, description="another one; without it auto with a force field"
    )
    system: str | None = Field(
        default=None, min_length=1, description="file of a serialised OpenMM System of the same atoms"
    )


class AnalyzeConfig(_Section):
    """Surfaces, error bars and the gates that a script may ask for."""

    bins: int = Field(default=72, ge=4, le=1000, description="per turn of a torsion")
    bootstrap: int = Field(default=200, ge=2, le=100_000, description="resamplings for error bars")
    probe: bool = Field(default=True, description="look for lost states, at up to a tenth of the time of the training")
    reference: str | None = Field(default=None, min_length=1, description="md.h5 of boltzgen md, to check against")
    require_ess: float | None = Field(
        default=None,
        gt=0,
        description="fail (exit 7) below it: a fraction of the samples up to 1, a count above 1",
    )
    strict: bool = Field(default=False, description="fail (exit 7) unless the verdict is OK")


class MdConfig(_Section):
    """Replica exchange as a reference: how long, and on which ladders of temperatures."""

    time_budget: Duration | None = Field(
        default=None, description="seconds, or text such as 30m, of all that md does; 10 minutes without any budget"
    )
    max_energies: Count | None = Field(default=None, description="energy evaluations, all that md does")
    ladders: int | None = Field(
        default=None, ge=1, le=10_000, description="independent ones; without it 32, or fewer where the budget is small"
    )
    rungs: int | None = Field(
        default=None,
        ge=2,
        le=1000,
        description="temperatures of a ladder; without it the root of the number of atoms, at least 8",
    )
    highest_temperature: float = Field(default=1000.0, gt=0, le=10_000, description="K, of the highest rung")
    timestep: float = Field(default=2.0, gt=0, le=4.0, description="fs, with hydrogens of 3 dalton")
    friction: float = Field(default=1.0, gt=0, le=1000.0, description="1/ps, of Langevin dynamics")
    steps: int = Field(default=100, ge=1, le=10**6, description="between exchanges")
    burn_in: float = Field(default=0.2, ge=0, le=0.9, description="share of the dynamics that is left out")
    frames: int = Field(default=100_000, ge=100, le=10**7, description="kept at the run's temperature, at most")


class Config(_Section):
    """Everything a run depends on besides its input; frozen, and stored in every file that a run writes."""

    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="of every random stream")
    threads: int = Field(default=0, ge=0, le=4096, description="CPU threads of training and md; 0: one for each core")
    prepare: PrepareConfig = Field(default_factory=PrepareConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    sample: SampleConfig = Field(default_factory=SampleConfig)
    reweight: ReweightConfig = Field(default_factory=ReweightConfig)
    analyze: AnalyzeConfig = Field(default_factory=AnalyzeConfig)
    md: MdConfig = Field(default_factory=MdConfig)


SECTIONS: dict[str, type[_Section]] = {
    name: field.annotation
    for name, field in Config.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, _Section)
}


def known_keys() -> Iterator[str]:
    """All keys as ``seed`` or ``prepare.solvent``."""
    for name in Config.model_fields:
        if name in SECTIONS:
            yield from (f"{name}.{key}" for key in SECTIONS[name].model_fields)
        else:
            yield name


def resolve_config(path: Path | None, overrides: list[str], flags: dict[str, Any]) -> Config:
    """Merge defaults < TOML file < overrides (``"a.b=v"``) < flags (``{"a.b": v}``) and validate.

    Raises
    ------
    boltzgen.errors.InputError
        Unknown key, wrong type or value out of range, malformed TOML or override: always one line.
    boltzgen.errors.StorageError
        If the file exists and cannot be read.
    """
    values: dict[str, Any] = {}
    places: dict[str, str] = {}  # key -> "FILE:LINE: " when its winning value comes from the file
    if path is not None:
        text = _read(path)
        for key, value in _flatten(_parse_toml(path, text)):
            values[key] = value
            places[key] = f"{path}:{_line_of(key, text)}: "
    for key, value in [*(_split_override(item) for item in overrides), *flags.items()]:
        values[key] = value
        places.pop(key, None)

    nested: dict[str, Any] = {}
    for key, value in values.items():
        _check_key(key, places.get(key, ""))
        section, _, name = key.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[name] = value
    try:
        return Config.model_validate(nested)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][:2] if not isinstance(part, int))
        place = places.get(key, "")
        raise InputError(f"{place}{key} = {_short(values[key])}: {_reason(key, first)}.") from None


def dump_config(config: Config) -> str:
    """TOML text of a complete configuration, which `resolve_config` reads back; unset keys are comments."""
    lines = [_toml_line(config, key) for key in Config.model_fields if key not in SECTIONS]
    for section in SECTIONS:
        part = getattr(config, section)
        lines += ["", f"[{section}]", *(_toml_line(part, key) for key in type(part).model_fields)]
    return "\n".join(lines) + "\n"


def _toml_line(section: _Section, key: str) -> str:
    value = getattr(section, key)
    comment = f"  # {type(section).model_fields[key].description}"
    if value is None:
        return f"# {key} ={comment}"
    # JSON's strings, numbers, booleans and flat lists are TOML's, except for DEL, which TOML wants escaped.
    text = json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")
    return f"{key} = {text}{comment}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError):
        raise InputError(f"{path}: is not a text file that exists. Give a TOML file to --config.") from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}).") from None


def _parse_toml(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        message = str(error)
        found = re.search(r" \(at line (\d+), column \d+\)$", message)
        line = int(found[1]) if found else text.count("\n") + 1
        reason = message[: found.start()] if found else message
        raise InputError(f"{path}:{line}: not valid TOML: {reason}. Correct the line.") from None


def _flatten(tables: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in tables.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", inner) for key, inner in value.items())
        else:
            yield name, value


def _line_of(key: str, text: str) -> int:
    """The line that sets `key`; 1 when it is written in a form rarer than ``[section]``, ``key = value``."""
    wanted_section, _, wanted = key.rpartition(".")
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\s*([^\[\]]*?)\s*\]", line):
            section = header[1]
        elif (entry := re.match(r"\s*([\w.\-\"' ]+?)\s*=", line)) and (
            (section, entry[1]) == (wanted_section, wanted) or (not section and entry[1] == key)
        ):
            return number
    return 1


def _split_override(item: str) -> tuple[str, Any]:
    key, separator, value = item.partition("=")
    if not separator or not key.strip():
        raise InputError(f"--set {item}: must have the form section.key=value.")
    key, value = key.strip(), value.strip()
    if value[:1] in ("[", '"', "'"):  # a list or a quoted text; anything else is taken as it stands
        try:
            return key, tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            raise InputError(f"--set {item}: the value is not a valid TOML value.") from None
    return key, value


def _check_key(key: str, place: str) -> None:
    known = list(known_keys())
    if key in known:
        return
    if key in SECTIONS:
        example = next(iter(SECTIONS[key].model_fields))
        raise InputError(f"{place}{key}: is a section. Set one of its keys, such as {key}.{example}.")
    by_name = {name.rpartition(".")[2]: name for name in known}
    last = key.rpartition(".")[2]
    near = [by_name[last]] if last in by_name else difflib.get_close_matches(key, known, n=1)
    near = near or [by_name[name] for name in difflib.get_close_matches(last, by_name, n=1)]
    advice = f"Did you mean {near[0]}?" if near else "--dump-config shows all keys."
    raise InputError(f"{place}unknown key {_short(key)}. {advice}")


def _reason(key: str, error: Any) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    section, _, name = key.rpartition(".")
    model = SECTIONS.get(section, Config)
    return "must be " + _describe(model.model_json_schema()["properties"][name])


def _describe(schema: dict[str, Any]) -> str:
    """The allowed values of one key in words, from its JSON schema."""
    if "anyOf" in schema:
        return _describe(next(option for option in schema["anyOf"] if option.get("type") != "null"))
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    if schema["type"] == "array":
        return f"a list, each {_describe(schema['items'])}"
    kind = {"number": "a number", "integer": "an integer", "boolean": "true or false", "string": "text"}
    bounds = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    limits = [f"{sign} {schema[name]}" for name, sign in bounds.items() if name in schema]
    if "minLength" in schema:
        limits.append("that is not empty")
    return " ".join([kind[schema["type"]], " and ".join(limits)]).strip()


def _short(value: Any) -> str:
    text = repr(value)[1:-1] if isinstance(value, str) and value else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
