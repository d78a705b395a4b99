"""What two services share: the model, the Kafka seam, stores, metrics, settings and the command line."""
