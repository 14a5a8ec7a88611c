"""A patch queue that builds a package: a pinned upstream wheel plus a series of patches, by pip, git and hatchling."""
