"""Over HTTP, against the served process, as a client would."""
