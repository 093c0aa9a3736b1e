"""What the project is worth, in figures, and whether a newer version of it may take over.

=============== ==========================================================================
`report.py`     the report: what was measured, and why the rest was not
`sections.py`   its sections, and the words for each
`wording.py`    the report as a text
`comparison.py` two reports side by side: bounds and verdicts
`measuring.py`  goes through the parts of a report
`suite.py`      tests: runs pytest, and reads what it reports
`checks.py`     lint, types, known vulnerabilities, coverage, hooks
`load.py`       a daemon under the standard load: /health, memory, the loop
`trees.py`      what is measured: this checkout, or a worktree of another commit
`environment.py` what a worktree runs in
`refs.py`       which commit is meant
`processes.py`  commands, and the end of them
=============== ==========================================================================

``python -m quality --help`` says how it is used; docs/quality.md what its figures mean.
"""
