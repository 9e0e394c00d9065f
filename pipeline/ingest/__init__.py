"""Ingest: cameras, files and folders of stills turned into frames with event times."""
