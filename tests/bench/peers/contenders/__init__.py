"""The contenders: one module for each, run by the interpreter of its own environment."""
