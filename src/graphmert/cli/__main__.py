"""Run the command line with `python -m graphmert.cli`."""

from graphmert.cli import main

main()
