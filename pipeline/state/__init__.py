"""State stores: where executed outputs wait for the links."""
