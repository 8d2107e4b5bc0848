"""A run on disk: `format` (the lines), `write`, `read` (any file, whatever has happened to it), `folder` (which runs).

`resume` (with what a run begins) and `spending` (what a project has used) stand on those.
"""
