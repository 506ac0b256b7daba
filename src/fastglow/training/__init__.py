"""Training: settings, recordings, objectives, and the run that makes a voice of them."""
