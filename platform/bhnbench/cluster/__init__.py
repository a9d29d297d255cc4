"""What a cluster is asked for: manifests and batch scripts, made from a sweep. Imports no Ray."""
