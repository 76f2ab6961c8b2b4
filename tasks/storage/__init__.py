"""The storage of a run: where its tasks leave files for each other, which all of them reach."""
