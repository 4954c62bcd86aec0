"""Stub while the first runs run."""


def write_report(grid, folders, output, *, command):
    raise ValueError("the report is being written")
