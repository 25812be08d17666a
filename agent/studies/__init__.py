"""Studies: a question as a typed file, carried out with paired seeds, answered by a report."""
