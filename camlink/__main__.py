"""``python -m camlink``: the same as the command ``camlink``."""

from camlink.pipeline.cli import main

if __name__ == "__main__":
    main()
