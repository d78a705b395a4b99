"""The sides of the joiner benches: ours, Faust, quixstreams, Kafka Streams and Flink, each alone on one core."""
