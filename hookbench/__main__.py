"""``python -m hookbench``: the same as the ``hookbench`` command."""

from hookbench.cli.main import main

if __name__ == "__main__":
    main()
