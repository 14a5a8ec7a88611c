"""The report of the runs: table, differences with intervals, plot."""
