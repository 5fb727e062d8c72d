"""Files: atomic HDF5 writing, the trajectory format, the run directory and its provenance."""
