"""The command analyze: surfaces, populations, plots and the verdict."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from boltzgen.analysis.comparison import Comparison
from boltzgen.analysis.plot_style import render
from boltzgen.analysis.plots import analysis_figures, training_figure
from boltzgen.analysis.report import html_report, profile_csv, representatives, surface_csv
from boltzgen.analysis.surfaces import EnsembleAnalysis, analyze_ensemble
from boltzgen.analysis.torsions import BASINS
from boltzgen.config import AnalyzeConfig, Config
from boltzgen.coordinates.layout import batch_last
from boltzgen.errors import GateError
from boltzgen.molecule import Molecule
from boltzgen.statistics.agreement import free_energy
from boltzgen.statistics.free_energy import Estimate
from boltzgen.statistics.verdict import Verdict, judge
from boltzgen.storage.atomic import atomic_write, open_hdf5, sha256_of
from boltzgen.storage.runs import Provenance, RunDirectory, check_parent, read_provenance
from boltzgen.storage.trajectory import Frames, read_trajectory, write_pdb
from boltzgen.storage.tree import get_tree, put_array, put_tree
from boltzgen.target import Target
from boltzgen.workflow.analysis_text import analyze_text, reference_tables
from boltzgen.workflow.evidence import Evidence, asks_for_other_evidence
from boltzgen.workflow.load import check_samples, load_weighted, require
from boltzgen.workflow.probe_text import probe_tables
from boltzgen.workflow.probing import Probed, probe_run
from boltzgen.workflow.reference import check_against, open_reference
from boltzgen.workflow.stage import Context, Stage, StageResult, Summary, stored_summary, writing
from boltzgen.workflow.summary import weight_keys, with_error
from boltzgen.workflow.trust import Trust, assess
from boltzgen.workflow.trust_text import trust_tables, weight_lines


def analyze(run: Path, config: Config, context: Context) -> StageResult:
    """Surfaces, populations, plots and the verdict: ``analysis.h5``, ``report.html``, ``plots/``, CSV tables."""
    directory = RunDirectory(run)
    ensemble = _checked_ensemble(directory)
    target = load_weighted(directory)
    settings = config.analyze
    reference = None
    if settings.reference is not None:
        reference = open_reference(Path(settings.reference), directory, target, ensemble.temperature)
    stage = Stage(
        "analyze",
        directory,
        directory.analysis_h5,
        {
            "analyze": settings.model_dump(mode="json", exclude={"require_ess", "strict", "reference"}),
            "seed": config.seed,
        },
        {"ensemble.h5": sha256_of(directory.ensemble_h5)} | ({"reference": reference.digest} if reference else {}),
        ensemble.temperature,
        config.seed,
        context,
        analyze_text,
    )
    with writing(directory):
        if stage.is_done(force=context.force or asks_for_other_evidence(stage)):
            result = stage.skipped()
        else:
            started = time.monotonic()
            frames = read_trajectory(directory.ensemble_h5)
            shape = _shapes(target, frames)
            analysis = analyze_ensemble(
                frames.positions,
                frames.log_weight,
                frames.reduced_potential,
                target.molecule,
                shape=shape,
                n_shapes=target.coordinates.n_charts,
                bins=settings.bins,
                n_bootstrap=settings.bootstrap,
                seed=config.seed,
            )
            checked = None
            if reference is not None:
                temperature = ensemble.temperature
                checked = check_against(
                    reference, directory, analysis, frames, shape, temperature, settings, config.seed
                )
            trust = assess(directory, target, frames, ensemble.temperature, settings, config.seed)
            evidence = Evidence(checked, _probed(directory, analysis, frames, stage, settings))
            result = _store(stage, analysis, frames, target.molecule, shape, evidence, trust, started)
    return replace(result, exit_code=_gate(result.summary, settings))


def _probed(
    directory: RunDirectory, analysis: EnsembleAnalysis, frames: Frames, stage: Stage, settings: AnalyzeConfig
) -> Probed | None:
    """The coverage probe, unless it is not wanted, or nothing was drawn that it could look at."""
    weights = analysis.weights
    if not settings.probe or not weights.ess > 1.0:
        return None
    log_z = Estimate(weights.log_z, weights.log_z_stderr)
    return probe_run(directory, frames, stage.temperature, log_z, stage.seed)


def _shapes(target: Target, frames: Frames) -> np.ndarray | None:
    """The chart of each frame, 0 the one of the lowest minimum; None if there is one chart."""
    if target.coordinates.n_charts == 1:
        return None
    return target.coordinates.assign(batch_last(frames.positions)).numpy()


def _checked_ensemble(directory: RunDirectory) -> Provenance:
    """The record of the ensemble, after checking that every file of the run was made from the ones before it."""
    require(directory.ensemble_h5, f"boltzgen reweight {directory.path}")
    ensemble = read_provenance(directory.ensemble_h5)
    for record in check_samples(directory):
        check_parent(ensemble, record.path)
    return ensemble


def _store(
    stage: Stage,
    analysis: EnsembleAnalysis,
    frames: Frames,
    molecule: Molecule,
    shape: np.ndarray | None,
    evidence: Evidence,
    trust: Trust,
    started: float,
) -> StageResult:
    directory = stage.directory
    verdict = judge(analysis.weights, evidence.reference_check, trust.checks, probe=evidence.probe_check)
    summary: Summary = {
        **weight_keys(asdict(analysis.weights)),
        "temperature": stage.temperature,
        **_force_field(directory),
        "verdict": verdict.word,
        "reasons": list(verdict.reasons),
        "populations": {name: _population(value) for name, value in analysis.populations.items()},
        **trust.summary(),
        **evidence.summary,
    }
    images, written = _write_analysis_files(directory, analysis, frames, molecule, shape, evidence.comparison, trust)
    directory.lost_states_pdb.unlink(missing_ok=True)  # of an earlier analysis
    if len(evidence.structures):
        write_pdb(directory.lost_states_pdb, molecule, evidence.structures)
        written.append(directory.lost_states_pdb)
    _write_report(directory, analysis, verdict, summary)
    summary["seconds"] = time.monotonic() - started

    def fill(file: h5py.File) -> None:
        put_tree(file.create_group("analysis"), analysis.to_tree())
        put_tree(file.create_group("trust"), _without_none(trust.summary()))
        for name, pixels in images.items():
            put_image(file.require_group("images"), name, pixels)
        if len(evidence.structures):
            put_tree(file.create_group("lost_states"), {"positions": evidence.basins.astype(np.float32)})
        if evidence.reference is not None:
            tree = {**evidence.reference.comparison.to_tree(), **evidence.reference.summary}
            put_tree(file.create_group("reference"), _without_none(tree))
        if evidence.probe is not None:
            put_tree(file.create_group("probe"), _without_none(evidence.probe.summary))

    return stage.write(fill, summary, files=[directory.report_html, *written])


def _write_analysis_files(
    directory: RunDirectory,
    analysis: EnsembleAnalysis,
    frames: Frames,
    molecule: Molecule,
    shape: np.ndarray | None,
    comparison: Comparison | None,
    trust: Trust,
) -> tuple[dict[str, np.ndarray], list[Path]]:
    """Plots, tables and representative structures; returns the pixels of the plots and the files written."""
    with open_hdf5(directory.flow_h5) as file:
        history = get_tree(file["history"])
    figures = (
        analysis_figures(analysis, comparison)
        | trust.figures(analysis.weights.khat)
        | {"training": training_figure(history)}
    )
    directory.plots.mkdir(exist_ok=True)
    pixels, written = {}, []

    def put(path: Path, data: bytes) -> None:
        atomic_write(path, data)
        written.append(path)

    for name, figure in figures.items():
        png, pixels[name] = render(figure)
        put(directory.plots / f"{name}.png", png)
    for label, residue in analysis.residues.items():
        for angle, raw, weighted in (
            ("phi", residue.phi_raw, residue.phi_profile),
            ("psi", residue.psi_raw, residue.psi_profile),
        ):
            put(directory.path / f"F_{angle}_{label}.csv", profile_csv(raw, weighted).encode())
        table = surface_csv(residue.edges, residue.surface_raw, residue.surface)
        put(directory.path / f"ramachandran_{label}.csv", table.encode())
    for label, torsion in analysis.torsions.items():
        put(directory.path / f"F_{label}.csv", profile_csv(torsion.raw, torsion.profile).encode())
    states = [np.asarray(BASINS)[residue.basin] for residue in analysis.residues.values()]
    if shape is not None:
        states.append(shape)
    states += [np.asarray(torsion.states.names)[torsion.state] for torsion in analysis.torsions.values()]
    if states:
        chosen: list[int] = []
        for labels in states:
            chosen += representatives(labels, frames.log_weight, frames.reduced_potential).values()
        path = directory.path / "representatives.pdb"
        write_pdb(path, molecule, frames.positions[sorted(set(chosen))])
        written.append(path)
    return pixels, written


def _write_report(directory: RunDirectory, analysis: EnsembleAnalysis, verdict: Verdict, summary: Summary) -> None:
    system = stored_summary(directory.system_h5) | _force_field(directory)
    training = stored_summary(directory.flow_h5)
    rows = {
        "molecule": f"{system['formula']}, {system['smiles']}",
        "force field": f"{system['force_field']} + {system['solvent']}",
        "temperature": f"{summary['temperature']:g} K",
        "samples": f"{summary['n_samples']:,}, {summary['n_failed']} failed",
        "effective sample size": f"{summary['ess']:,.0f} ({100 * summary['ess_fraction']:.1f} %), unclipped",
        "Pareto k": f"{summary['khat']:.2f}",
        **weight_lines(summary),
        "log Z": with_error(summary["log_z"], summary["log_z_stderr"]),
        "training": f"{training['n_energy_evaluations']:,} energies with forces, {training['seconds']:.0f} s, "
        f"seed {training['seed']}",
    }
    plots = {path.stem: f"plots/{path.name}" for path in sorted(directory.plots.glob("*.png"))}
    record = read_provenance(directory.ensemble_h5)
    provenance = {"samples weighted": record.created_utc, "package": record.package_version} | record.libraries
    tables = reference_tables(summary["reference"]) if "reference" in summary else {}
    tables |= probe_tables(summary["probe"]) if "probe" in summary else {}
    tables |= trust_tables(summary)
    title = directory.path.resolve().name
    page = html_report(title, rows, verdict, analysis.populations, plots, provenance, tables)
    atomic_write(directory.report_html, page.encode())


def _force_field(directory: RunDirectory) -> Summary:
    """Force field and solvent that the ensemble was reweighted to, if they are not the run's."""
    stored = stored_summary(directory.ensemble_h5)
    return {key: stored[key] for key in ("force_field", "solvent") if key in stored}


def _population(value: Estimate) -> Summary:
    """A population, and its free energy in kT against all else."""
    energy = free_energy(value)
    finite = np.isfinite(energy.value)
    return {
        **asdict(value),
        "free_energy": energy.value if finite else None,
        "free_energy_stderr": energy.stderr if finite else None,
    }


def _without_none(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is not determined, and with the entries of lists by their numbers, as a tree to be stored."""
    kept = {}
    for name, value in tree.items():
        if isinstance(value, list):
            value = {f"{k:04d}": item for k, item in enumerate(value)}
        if value is not None:
            kept[name] = _without_none(value) if isinstance(value, Mapping) else value
    return kept


def put_image(group: h5py.Group, name: str, pixels: np.ndarray) -> None:
    """Store ``(height, width, 3)`` uint8 pixels as an HDF5 image (Image Specification 1.2), for viewers of HDF5."""
    dataset = put_array(group, name, pixels)
    attributes = {"CLASS": b"IMAGE", "IMAGE_VERSION": b"1.2", "IMAGE_SUBCLASS": b"IMAGE_TRUECOLOR"}
    for key, value in (attributes | {"INTERLACE_MODE": b"INTERLACE_PIXEL"}).items():
        dataset.attrs[key] = np.bytes_(value)


def _gate(summary: Mapping[str, Any], settings: AnalyzeConfig) -> int:
    """Exit code 7 if a gate that the user asked for is not met, else 0."""
    required = settings.require_ess
    if required is not None:
        reached = summary["ess_fraction"] if required <= 1.0 else summary["ess"]
        if reached < required:
            return GateError.exit_code
    return GateError.exit_code if settings.strict and summary["verdict"] != "OK" else 0
