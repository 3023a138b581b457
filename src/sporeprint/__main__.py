"""`python -m sporeprint` is the command line."""

from sporeprint.cli import main

main()
