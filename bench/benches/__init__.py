"""One bench or family a file, each with its BENCHES; REGISTRY has all of them in the order in which they are run."""

from bench.bench import Bench
from bench.benches import (
    catalogue_growth,
    codec,
    decode,
    decode_latency,
    joiner,
    kmeans,
    request_latency,
    reward,
    train,
    whole_loop,
)

REGISTRY: tuple[Bench, ...] = (
    *decode.BENCHES,
    *decode_latency.BENCHES,
    *catalogue_growth.BENCHES,
    *train.BENCHES,
    *joiner.BENCHES,
    *codec.BENCHES,
    *reward.BENCHES,
    *kmeans.BENCHES,
    *request_latency.BENCHES,
    *whole_loop.BENCHES,
)
