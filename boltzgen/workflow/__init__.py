"""One function per command: load, call, store. The only place where the rooms meet."""

from boltzgen.workflow.analyze import analyze
from boltzgen.workflow.load import load_generator
from boltzgen.workflow.md import md, preview_md
from boltzgen.workflow.overview import info, run_all
from boltzgen.workflow.prepare import prepare
from boltzgen.workflow.preview import preview
from boltzgen.workflow.reweight import reweight
from boltzgen.workflow.sample import sample
from boltzgen.workflow.selftest import selftest
from boltzgen.workflow.stage import Context, Result, StageResult
from boltzgen.workflow.train import train

__all__ = [
    "Context",
    "Result",
    "StageResult",
    "analyze",
    "info",
    "load_generator",
    "md",
    "prepare",
    "preview",
    "preview_md",
    "reweight",
    "run_all",
    "sample",
    "selftest",
    "train",
]
