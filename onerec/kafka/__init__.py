"""The Kafka seam: the only package that talks to a broker with confluent-kafka."""
