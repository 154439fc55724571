"""`gemmaq`, and `python -m gemmaq`."""

from gemmaq.cli import interrupts


def _command() -> None:
    from gemmaq.cli.app import main as command

    command()


def main() -> None:
    """Run the command line; signals are handled before anything else is imported."""
    interrupts.run(_command)


if __name__ == "__main__":
    main()
