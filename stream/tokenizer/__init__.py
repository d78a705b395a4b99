"""Items to semantic ids: embeddings, balanced residual k-means, the codebook and the Faust service."""
