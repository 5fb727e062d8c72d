"""From a file or a SMILES to an OpenMM System and a plain molecule. Alone here: RDKit and openmm.app."""
