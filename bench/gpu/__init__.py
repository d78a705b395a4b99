"""What a GPU does with the same code: decoding and training, beside transformers on the same device."""
