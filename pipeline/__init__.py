"""Runtime and user surface: records, configuration, ingest, bus, results, reports, command line."""
