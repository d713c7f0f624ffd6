"""`python -m didact.cli`: the command, where no script is installed."""

from didact.cli.app import main

if __name__ == "__main__":
    main()
