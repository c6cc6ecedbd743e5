"""One small file per data set, each turning a folder into a manifest."""
