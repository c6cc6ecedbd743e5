"""One small file per dataset, each turning a folder into a manifest."""
