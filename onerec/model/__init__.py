"""The recommender in torch: semantic ids, encoder, sparse decoder, reward model and preference losses."""
