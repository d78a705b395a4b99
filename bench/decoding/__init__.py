"""The sides of the decode benches: the product's engine, transformers' T5 and CTranslate2."""
