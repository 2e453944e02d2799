"""What looks on: metrics and health over HTTP, and what counts for them. Not loaded where nobody can ask."""
