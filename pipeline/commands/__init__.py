"""The commands of `camlink`, a file each. Heavy libraries are imported when a command runs, never for ``--help``."""
