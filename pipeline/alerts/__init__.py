"""Events out: rules over the results, kept in an outbox until whoever was to hear of them has."""
