"""Who may do what, against a real broker with TLS, SCRAM and access rules."""
