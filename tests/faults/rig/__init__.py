"""A whole service of real processes that tests kill, stop and set the clock of."""
