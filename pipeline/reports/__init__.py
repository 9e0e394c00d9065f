"""Per-camera accuracy reports: terminal, JSON and one self-contained HTML file."""
