"""The paper's tables and figures, and the prequential evaluation of the running loop."""
