"""What OneRec is compared with: counts, item-wise sequence models, and the retrieval models that it replaces.

`running` holds the baselines that learn along with the stream; the others are trained once, on `sequences`.
"""
