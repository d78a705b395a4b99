"""A/B runs of the whole running system with simulated users: a cascade, OneRec, and OneRec with IPA."""
