"""What comes from outside the flow: a reference, the coverage probe, and structures of what they found lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boltzgen.analysis.comparison import Comparison
from boltzgen.statistics.verdict import ProbeCheck, ReferenceCheck
from boltzgen.storage.runs import read_provenance
from boltzgen.workflow.probing import Probed
from boltzgen.workflow.reference import Checked
from boltzgen.workflow.stage import Stage, Summary


@dataclass(frozen=True)
class Evidence:
    """A reference and a probe, as far as there is one."""

    reference: Checked | None
    probe: Probed | None

    @property
    def comparison(self) -> Comparison | None:
        """Populations and surfaces of the reference."""
        return self.reference.comparison if self.reference else None

    @property
    def reference_check(self) -> ReferenceCheck | None:
        """What the reference tells the verdict."""
        return self.reference.check if self.reference else None

    @property
    def probe_check(self) -> ProbeCheck | None:
        """What the probe tells the verdict."""
        return self.probe.check if self.probe else None

    @property
    def structures(self) -> NDArray:
        """One of each lost state ``(k, atoms, 3)`` nm: of the reference, then of the probe."""
        return self._joined(self.probe.structures if self.probe else None)

    @property
    def basins(self) -> NDArray:
        """Structures of lost states ``(n, atoms, 3)`` nm that a training can go on with: several of each."""
        return self._joined(self.probe.basins if self.probe else None)

    def _joined(self, of_probe: NDArray | None) -> NDArray:
        parts = [of_probe, self.reference.lost if self.reference else None]
        found = [part for part in reversed(parts) if part is not None and len(part)]
        return np.concatenate(found) if found else np.empty((0, 0, 3))

    @property
    def summary(self) -> Summary:
        """Plain values under the keys of ``--json``."""
        of_reference = {"reference": self.reference.summary} if self.reference else {}
        return of_reference | ({"probe": self.probe.summary} if self.probe else {})


def asks_for_other_evidence(stage: Stage) -> bool:
    """Whether an analysis is there that differs in its reference or probe alone: it is made anew without a question."""
    if not stage.output.exists():
        return False
    record = read_provenance(stage.output)

    def rest(config: Mapping[str, Any], parents: Mapping[str, str]) -> tuple[Any, ...]:
        analyze = {key: value for key, value in config["analyze"].items() if key != "probe"}
        return analyze, config["seed"], parents["ensemble.h5"]

    same = rest(record.config, record.parents) == rest(stage.config, stage.parents)
    return same and record.fingerprint != stage.fingerprint
