"""The stage runner: options, stage table, jobs and stamps. Standard library and yaml only, no corpus names."""
