"""`python -m gemmaq`."""

from gemmaq.cli.app import main

if __name__ == "__main__":
    main()
