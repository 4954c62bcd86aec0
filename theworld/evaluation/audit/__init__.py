"""Does a model use its world tokens, or its image? One checkpoint answers the same questions with each taken away."""
