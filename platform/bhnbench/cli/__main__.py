"""`python -m bhnbench.cli`, the same as `bhnbench`."""

from bhnbench.cli.main import main

if __name__ == "__main__":
    main(prog_name="bhnbench")
