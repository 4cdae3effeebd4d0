"""The ways in which the guide loses, duplicates, strands or reorders a task, each reproduced."""
